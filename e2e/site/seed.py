"""Fills the test's site with pages, pictures and one editor; run by `manage.py shell`."""
import io

from django.contrib.auth import get_user_model
from django.core.files.images import ImageFile
from home.models import HomePage
from PIL import Image as Picture
from wagtail.images.models import Image

get_user_model().objects.create_superuser("editor", "editor@shop.example", "walk-the-pages")


def picture(title, hue):
    """A gradient, saved as a JPEG of 1280 × 560."""
    made = Picture.linear_gradient("L").resize((1280, 560)).convert("RGB")
    made = Picture.blend(made, Picture.new("RGB", made.size, hue), 0.5)
    file = io.BytesIO()
    made.save(file, "JPEG")
    return Image.objects.create(title=title, file=ImageFile(file, name=f"{title}.jpg"))


home = HomePage.objects.get()
home.title = "Lantern Works"
home.body = "<p>Lanterns, lamps and wicks, made by hand.</p>"
home.picture = picture("workshop", (160, 90, 20))
home.save_revision().publish()
for slug, title, hue in [("lamps", "Lamps", (200, 160, 40)), ("wicks", "Wicks", (40, 120, 90)), ("about", "About us", (70, 70, 160))]:
    page = HomePage(title=title, slug=slug, body=f"<p>All about <b>{title}</b>.</p>", picture=picture(slug, hue))
    home.add_child(instance=page)
    page.save_revision().publish()
print("seeded", HomePage.objects.count(), "pages")
