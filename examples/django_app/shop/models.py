"""An order, as Django stores it."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    euro = models.DecimalField(max_digits=9, decimal_places=2)
