"""The configuration file of the service: Ray Serve's own, with one application of `serve.app:build`."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffaa_core.config import lay_over, read_config, section
from ffaa_core.errors import ConfigurationError
from ffaa_core.settings import from_mapping
from serve.config import ServeConfig
from serve.invalid import told, wrong_in

if TYPE_CHECKING:
    from ray.serve.schema import ServeDeploySchema

NAME = "ffaa"
IMPORT_PATH = "serve.app:build"
GATEWAY = "Gateway"
THIS_MACHINE = "127.0.0.1"
"""Where it listens if nothing else is said. On a cluster the same file means every address."""


class Deployment:
    """What Ray Serve is asked to run. `content` is the file's, with the options laid over it.

    Raises:
        ConfigurationError: the file cannot be read, or is not one of this service.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        from pydantic import ValidationError
        from ray.serve.schema import ServeDeploySchema

        self.content = content
        try:
            self.schema = ServeDeploySchema.model_validate(content)
        except ValidationError as error:
            raise ConfigurationError(
                f"Ray Serve does not take this configuration: {told(wrong_in(error))}"
            ) from None
        self.application = only_application(content)
        self.name = str(self.application["name"])
        self.config = from_mapping(ServeConfig, self.application["args"])

    @classmethod
    def read(cls, path: Path | None, options: Mapping[str, Any], http: Mapping[str, Any]) -> "Deployment":
        """The file's, or the default one, under options.

        Args: options: dotted names of settings in the application's `args` to values; None overrides nothing.
            http: the same of Ray Serve's `http_options`.
        """
        content: dict[str, Any] = {"applications": [{"import_path": IMPORT_PATH}]}
        if path:
            content = read_config(path, {})
        application = only_application(content)
        application.setdefault("name", NAME)
        application.setdefault("route_prefix", "/")
        lay_over(section(application, "args"), options)
        lay_over(content, {f"http_options.{name}": value for name, value in http.items()})
        section(content, "http_options").setdefault("host", THIS_MACHINE)
        return cls(content)

    def draining(self) -> "Deployment":
        """The same, its gateways told to finish what they have and to admit nothing else."""
        content = copy.deepcopy(self.content)
        deployments = only_application(content).setdefault("deployments", [])
        gateway = next((each for each in deployments if each.get("name") == GATEWAY), None)
        if gateway is None:
            deployments.append(gateway := {"name": GATEWAY})
        gateway["user_config"] = {"drain": True}
        return Deployment(content)

    def placed(self, name: str, route_prefix: str | None) -> "Deployment":
        """The same as an application of this name and at this route; without one no request reaches it."""
        content = copy.deepcopy(self.content)
        only_application(content).update(name=name, route_prefix=route_prefix)
        return Deployment(content)

    def beside(self, *others: "Deployment") -> "ServeDeploySchema":
        """What Ray Serve is asked to run that is to run `others`, too."""
        from ray.serve.schema import ServeDeploySchema

        applications = [each.application for each in (self, *others)]
        return ServeDeploySchema.model_validate(self.content | {"applications": applications})

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened at."""
        return self.schema.http_options.host, self.schema.http_options.port


def only_application(content: Mapping[str, Any]) -> dict[str, Any]:
    """The file's one application.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    applications = content.get("applications")
    if not isinstance(applications, list) or len(applications) != 1 or not isinstance(applications[0], dict):
        raise ConfigurationError(
            "the configuration file of the service needs `applications` with one entry, as Ray Serve has it"
        )
    application: dict[str, Any] = applications[0]
    return application
