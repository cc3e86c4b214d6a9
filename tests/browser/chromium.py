"""The Chromium that is on this machine."""

import os
import shutil

# Nothing of a browser's own is fetched either.
ARGUMENTS = ["--no-sandbox", "--disable-background-networking"]


def find_chromium() -> str | None:
  """Returns the program that SORBUS_CHROMIUM names, or the one in the PATH; None where there is none."""
  names = ("chromium", "chromium-browser", "google-chrome")
  return os.environ.get("SORBUS_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
