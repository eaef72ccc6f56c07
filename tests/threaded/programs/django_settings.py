"""Of a small Django site."""

SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
