"""The model code that MLflow runs when it saves or loads a registered version (models from code)."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from pld.errors import DataError, PldError
from pld.serving.log import ServingLog
from pld.serving.model import Classified, PromptClassifier
from pld.serving.requests import answer_invocations, read_records, read_request


class ServedPrompt(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers records of the task with label and scores; see `PromptClassifier.rows`."""

    def load_context(self, context: Any) -> None:
        self._classifier = PromptClassifier.load(Path(context.artifacts["spec"]).parent)
        self._log = ServingLog.from_environment()
        self._classifier.warm_up()
        answer_invocations(self.respond)

    # MLflow 3.17 warns of a missing hint and checks against any other than this one; `read_records` takes more
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: ARG002
        try:
            return self._classifier.frame(self._classify(read_records(self._classifier.spec.task, model_input)))
        except DataError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def respond(self, body: bytes, content_type: str | None) -> str:
        """The JSON answer to a request to /invocations. Raises MlflowException."""
        try:
            found = self._classify(read_request(self._classifier.spec.task, body, content_type))
        except DataError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        except PldError as error:
            raise MlflowException(str(error), error_code=INTERNAL_ERROR) from None
        return json.dumps({"predictions": self._classifier.rows(found)}, allow_nan=False)

    def _classify(self, records: list[dict[str, str]]) -> Classified:
        found, spec = self._classifier.classify(records), self._classifier.spec
        if self._log is not None:
            self._log.add(records, found.labels, found.scores.tolist(), spec.prompt_sha256, spec.prompt_version)
        return found


mlflow.models.set_model(ServedPrompt())
