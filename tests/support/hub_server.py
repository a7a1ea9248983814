"""A hub that speaks the endpoints which `datasets` asks for, with data sets that a test makes up."""

import hashlib
import json
from urllib.parse import unquote, urlsplit

from support.local_server import LocalServer, Reply

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(LocalServer):
    """`files`: "owner/name" → path in the repository → bytes."""

    def __init__(self, files):
        self.files = files
        super().__init__()

    def reply(self, request):
        status, content, headers = self._found(unquote(urlsplit(request.path).path).strip("/"), request.body)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        return Reply(status, data, {"content-type": kind, **headers})

    def _found(self, path, body):
        missing = (404, {"error": "no such thing"}, {"X-Error-Code": "EntryNotFound"})
        parts = path.split("/")
        if parts[:2] == ["api", "datasets"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            if name not in self.files:
                return 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            entries = [self._entry(file, content) for file, content in self.files[name].items()]
            if rest[:1] == ["tree"]:
                found = self._listed(entries, "/".join(rest[2:]))
                return (200, found, {}) if found else missing
            if rest[:1] == ["paths-info"]:
                wanted = body.get("paths", [])
                return 200, [entry for entry in entries if entry["path"] in wanted], {}
            siblings = [{"rfilename": entry["path"]} for entry in entries]
            return 200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}, {}
        if parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            content = self.files.get("/".join(parts[1:3]), {}).get("/".join(parts[5:]))
            if content is None:
                return missing
            etag = hashlib.sha1(content).hexdigest()
            return 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content))}
        return missing

    @staticmethod
    def _listed(entries, folder):
        """What stands in `folder` itself, and the folders in it."""
        inside = f"{folder}/" if folder else ""
        below = [entry for entry in entries if entry["path"].startswith(inside)]
        folders = {e["path"][len(inside) :].split("/")[0] for e in below if "/" in e["path"][len(inside) :]}
        listed = [entry for entry in below if "/" not in entry["path"][len(inside) :]]
        return listed + [{"type": "directory", "path": inside + name, "oid": "0" * 40} for name in sorted(folders)]

    @staticmethod
    def _entry(path, content):
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
