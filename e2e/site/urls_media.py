"""Adds the uploaded files to the site's URLs: Django serves them itself here."""
from django.conf import settings
from django.urls import re_path
from django.views.static import serve

from .urls import urlpatterns as site_urlpatterns

media = re_path(r"^media/(?P<path>.*)$", serve, {"document_root": settings.MEDIA_ROOT})
urlpatterns = [media, *site_urlpatterns]
