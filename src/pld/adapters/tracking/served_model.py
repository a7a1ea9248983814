"""The code of a registered model (MLflow runs this file when it saves and when it loads one)."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from pld.adapters.tracking.serving import PromptClassifier
from pld.errors import PldError


class ServedPrompt(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers records of the task with label and scores; see `PromptClassifier.answer`."""

    def load_context(self, context: Any) -> None:
        self._classifier = PromptClassifier.load(Path(context.artifacts["spec"]).parent)
        self._classifier.warm_up()

    # MLflow 3.17 warns of a missing hint and checks against any other than this one; `answer` takes more, and checks
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: ARG002
        try:
            return self._classifier.answer(model_input)
        except PldError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


mlflow.models.set_model(ServedPrompt())
