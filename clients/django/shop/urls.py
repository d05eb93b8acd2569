from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path

from .models import Product


def product(request: HttpRequest, key: int) -> HttpResponse:
    one = get_object_or_404(Product, pk=key)
    response = HttpResponse(f"{one.name}: {one.cents / 100:.2f}\n", content_type="text/plain")
    response.headers["Surrogate-Key"] = f"product-{one.pk}"
    response.headers["Cache-Control"] = "public, max-age=3600"
    return response


urlpatterns = [path("products/<int:key>", product)]
