"""Its one view."""

from answers import answer
from django.http import HttpRequest, HttpResponse
from django.urls import re_path


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(answer(request.path))


urlpatterns = [re_path("", view)]
