"""Settings of the test's site: what `wagtail start` made, run as in production, without a web server before it."""
from .base import *  # noqa: F403

DEBUG = False
SECRET_KEY = "only for a site that lives for one test"
ALLOWED_HOSTS = ["*"]
# WhiteNoise serves the static files itself, named by their content and fresh for ever.
MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")  # noqa: F405
STORAGES["staticfiles"]["BACKEND"] = "whitenoise.storage.CompressedManifestStaticFilesStorage"  # noqa: F405
WAGTAIL_ENABLE_UPDATE_CHECK = False
WAGTAIL_ENABLE_WHATS_NEW_BANNER = False
# The pictures of users would come from another host.
WAGTAIL_GRAVATAR_PROVIDER_URL = None
ROOT_URLCONF = "shop.urls_media"
