"""A view that stores an order and counts it, in one transaction."""

from __future__ import annotations

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse

from chancy_metrics.plugin import Observation
from shop.models import Order
from shop.queue import chancy, metrics


def place(request: HttpRequest, euro: str) -> JsonResponse:
    """Store an order. It is counted if, and only if, the transaction commits: no background thread is needed."""
    with transaction.atomic():
        order = Order.objects.create(euro=euro)
        with connection.cursor() as cursor:
            # Django wraps psycopg's cursor.
            metrics.sync_record_in_transaction(chancy, cursor.cursor, Observation.counter("shop:orders"))
    return JsonResponse({"order": order.pk})
