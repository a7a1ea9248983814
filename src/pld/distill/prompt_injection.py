"""Detects prompt injection in generated rules: text that gives its reader orders instead of describing examples.

Patterns match only where a clause or a sentence begins, so that a rule may still describe a text that "asks its reader
to ignore instructions".
"""

import re

# An order about the instructions themselves at the start of a clause; "the text says to ignore its instructions"
# describes an example and is a fair condition
_ABOUT_INSTRUCTIONS = re.compile(
    r"(?:^|[.;:!?,]\s*|\b(?:and|then|please|but|now)\s+)"
    r"(?:ignore|disregard|forget|override|bypass|reveal|repeat|print|quote|output|copy|change|rewrite|delete|remove|replace)"
    r"\s+(?:\w+\s+){0,2}?(?:"
    r"(?:the|everything|all)\s+(?:(?:of\s+the|text|written|said)\s+)?above\b(?!-)"
    r"|(?:previous|prior|above|earlier|preceding|neighbou?ring|other|all|any|these|those|your|system)\s+"
    r"(?:\w+\s+){0,2}(?:instructions?|prompts?|rules?|orders?|guidelines?|directions?)\b)"
    # the same in other languages, anywhere
    r"|\bignor(?:ier\w*|ez|a|ad|ar|are|ate|i|iamo)\b\W+(?:\w+\W+){0,4}?(?:instru|istru|anweisung|consigne)"
    r"|(?:忽略|无视|忽視|無視)\w{0,12}(?:指令|指示|说明|說明)|игнорир\w*\W+(?:\w+\W+){0,3}?(?:инструкц|указан)",
    re.IGNORECASE,
)
# a sentence that assigns the reader a role, or dictates what rules say
_A_ROLE = re.compile(
    r"(?:^|[.!?][\"'”’)]*\s)\s*(?:you\s+are|act\s+as|pretend|your\s+(?:new\s+)?(?:role|instructions?)"
    r"|the\s+(?:rule|instruction|prompt)s?\s+(?:must|should|shall))\b"
    r"|(?:^|[.;:!?,]\s*)(?:you\s+are\s+now|from\s+now\s+on)\b",
    re.IGNORECASE,
)
_A_TURN = re.compile(
    r"^[\s#*>]*(?:human|user|assistant|system)[\s*]*:|^\s*#{2,}\s*(?:instruction|response)|\bgold\s+label\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_ENCODED = re.compile(r"[A-Za-z0-9+/]{32,}")  # longer than any word of a rule
# a sentence that demands an answer for every example, without a condition
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+|\n")
_WHATEVER = (
    r"(?:always|regardless|irrespective|no\s+matter|whatever|in\s+(?:every|all|any)\s+cases?"
    r"|(?:for|to)\s+(?:every|each|all|any)\s+(?:input|text|message|example|question)s?)\b"
)
_UNCONDITIONAL = re.compile(rf"\W*(?:(?:please|just|simply)\s+)?(?:{_WHATEVER}|answer\b.*\b{_WHATEVER})", re.IGNORECASE)
_CONDITION = re.compile(
    r"\b(?:if|when|whenever|where|wherever|unless|once|while|only|provided|should)\b", re.IGNORECASE
)
_ANSWER = re.compile(r"\banswer\b", re.IGNORECASE)


def order_in(text: str) -> str | None:
    """Why `text` is an order to its reader rather than a rule about examples; None when it is a rule."""
    if _ABOUT_INSTRUCTIONS.search(text):
        return "gives an order about instructions"
    if _A_ROLE.search(text):
        return "tells its reader what to be or what rules are to say"
    if _A_TURN.search(text):
        return "looks like a turn of a chat"
    if _ENCODED.search(text):
        return "holds encoded text"
    for sentence in _SENTENCE_END.split(text):
        if _UNCONDITIONAL.match(sentence) and _ANSWER.search(sentence) and not _CONDITION.search(sentence):
            return "asks for an answer whatever the example says"
    return None
