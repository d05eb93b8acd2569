"""Purge on change for Django: what is saved or deleted is purged from the CDN once the transaction has been committed.

    # models.py: which surrogate keys a model's pages have
    from perigee_purge import purge_on_change
    purge_on_change(Product, lambda product: [f"product-{product.pk}"])

    # views.py: the page says which keys it has
    response.headers["Surrogate-Key"] = f"product-{product.pk}"

Where the CDN is says the environment, as `perigee_client.from_environment` reads it. When the CDN cannot be asked, the save stands and an error
is logged: stale pages end with their TTL. What changes its keys is purged by the old and the new ones. `QuerySet.update` and bulk operations send no signals:
call `purge` yourself.
"""

import logging
from collections.abc import Callable, Iterable

from django.db import models, transaction
from django.db.models.signals import post_delete, post_init, post_save

from perigee_client import PerigeeError, Purger, from_environment

log = logging.getLogger("perigee")
Keys = Callable[[models.Model], Iterable[str]]


def purge_on_change(model: type[models.Model], keys: Keys, purger: Purger | None = None) -> None:
    """Purges `keys(object)` whenever an object of `model` is saved or deleted."""

    def remember(instance: models.Model, **_: object) -> None:
        # What it is called before somebody changes it; objects that are not in the database yet have no pages.
        instance._perigee_keys = set(keys(instance)) if instance.pk else set()

    def changed(instance: models.Model, using: str = "default", **_: object) -> None:
        now = set(keys(instance))
        tags = sorted(now | getattr(instance, "_perigee_keys", set()))
        instance._perigee_keys = now
        # Not before: a page that is fetched in between would show what was, and be kept.
        transaction.on_commit(lambda: purge(tags, purger), using=using)

    post_init.connect(remember, sender=model, weak=False)
    post_save.connect(changed, sender=model, weak=False)
    post_delete.connect(changed, sender=model, weak=False)


def purge(tags: list[str], purger: Purger | None = None) -> None:
    """Purges surrogate keys; logs an error when the CDN cannot be asked."""
    try:
        (purger or from_environment()).purge(tags=tags, reason="changed in Django")
    except PerigeeError as error:
        log.error("the CDN keeps %s until they expire: %s", ", ".join(tags), error)
