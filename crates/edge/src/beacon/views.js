// What a page view was like for its visitor, told once, when the page is hidden for the first time. Metrics are those of web.dev: see
// docs/rum.md. Keeps nothing, and reads nothing but the browser's own clock of this page.
if (!self.perigeeViews && self.PerformanceObserver && navigator.sendBeacon) {
    self.perigeeViews = 1;
    const nav = performance.getEntriesByType("navigation")[0] || {};
    const start = nav.activationStart || 0;
    const at = time => Math.max(0, time - start);
    const between = (from, to) => Math.max(0, at(to) - at(from));
    const told = {};
    const flush = [];
    let hiddenAt = document.visibilityState == "hidden" && !document.prerendering ? 0 : Infinity;
    for (const { name, startTime } of performance.getEntriesByType("visibility-state"))
        if (name == "hidden" && startTime >= start) hiddenAt = Math.min(hiddenAt, startTime);
    const watch = (type, each, more) => {
        if (!(PerformanceObserver.supportedEntryTypes || []).includes(type)) return;
        const observer = new PerformanceObserver(list => list.getEntries().forEach(each));
        observer.observe({ type, buffered: true, ...more });
        flush.push(() => observer.takeRecords().forEach(each));
        return 1;
    };
    watch("paint", entry => {
        if (entry.name == "first-contentful-paint" && entry.startTime < hiddenAt) told.fcp = at(entry.startTime);
    });
    watch("largest-contentful-paint", entry => {
        if (entry.startTime < hiddenAt) told.lcp = at(entry.startTime);
    });
    // The largest window of shifts that are less than 1 s apart, 5 s long at most.
    let largest = 0, sum = 0, first = 0, last = 0;
    const shifts = watch("layout-shift", entry => {
        if (entry.hadRecentInput) return;
        if (!sum || entry.startTime - last > 1000 || entry.startTime - first > 5000) {
            sum = 0;
            first = entry.startTime;
        }
        last = entry.startTime;
        largest = Math.max(largest, sum += entry.value);
    });
    // The ten slowest interactions; of many, one in fifty is passed over.
    let slowest = [], low = Infinity, high = 0;
    const interaction = ({ interactionId: id, duration }) => {
        if (!id) return;
        low = Math.min(low, id);
        high = Math.max(high, id);
        const known = slowest.find(one => one.id == id);
        if (known) known.duration = Math.max(known.duration, duration);
        else slowest.push({ id, duration });
        slowest = slowest.sort((a, b) => b.duration - a.duration).slice(0, 10);
    };
    watch("event", interaction, { durationThreshold: 40 });
    watch("first-input", interaction);
    const tell = () => {
        if (self.perigeeViews == 2) return;
        self.perigeeViews = 2;
        flush.forEach(each => each());
        if (!(nav.responseStart > 0)) return;
        told.ttfb = at(nav.responseStart);
        if (nav.loadEventEnd) told.load = at(nav.loadEventEnd);
        told.redirect = between(start, nav.fetchStart);
        told.dns = between(nav.domainLookupStart, nav.domainLookupEnd);
        told.connect = between(nav.connectStart, nav.secureConnectionStart || nav.connectEnd);
        told.tls = nav.secureConnectionStart ? between(nav.secureConnectionStart, nav.connectEnd) : 0;
        told.wait = between(nav.requestStart, nav.responseStart);
        if (shifts && told.fcp != null) told.cls = largest;
        const count = performance.interactionCount || (high ? (high - low) / 7 + 1 : 0);
        if (slowest.length) told.inp = slowest[Math.min(slowest.length - 1, Math.floor(count / 50))].duration;
        let url = views;
        for (const name in told) url += "&" + name + "=" + +told[name].toFixed(name == "cls" ? 4 : 1);
        navigator.sendBeacon(url + "&p=" + location.pathname.slice(0, 512));
    };
    document.addEventListener("visibilitychange", () => document.visibilityState == "hidden" && tell(), true);
    addEventListener("pagehide", tell, true);
}
