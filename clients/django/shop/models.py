from django.db import models

from perigee_purge import purge_on_change


class Product(models.Model):
    name = models.CharField(max_length=100)
    cents = models.IntegerField()


purge_on_change(Product, lambda product: [f"product-{product.pk}"])
