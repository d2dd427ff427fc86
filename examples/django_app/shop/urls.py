"""The project's one URL."""

from __future__ import annotations

from django.urls import path

from shop.views import place

urlpatterns = [path("orders/<str:euro>/", place)]
