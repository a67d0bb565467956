"""`serve run serve.app:build_app dataset=… recommenders=…` from a checkout; the application is part of the library."""

from toolrec.serving.app import build_app
from toolrec.serving.config import AppConfig

__all__ = ["AppConfig", "build_app"]
