"""What nginx counted, as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from nginx_config_renderer.exposition import exposition

BUCKETS = (0.1, 1.0)
NUMBERS = {
    "shop/web c2": 5,
    "shop/web c5": 1,
    "shop/web t1": 4,
    "shop/web t3": 2,
    "shop/web ts": 7.25,
    "shop/web in": 600,
    "shop/web out": 1e9,
    "shop/web r": 1,
    "- c4": 3,
    "old/gone c2": 9,
    "shop/api:80 e": 2,
    "lost": 0,
}
THERE = {"shop/web", "shop/api:80"}


def samples(numbers: dict[str, float]) -> dict[tuple[str, str], float]:
    text, _ = exposition(numbers, BUCKETS, {"active": 4}, THERE.__contains__)
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_count_is_a_series_of_its_ingress() -> None:
    found = samples(NUMBERS)
    shop = "ingress=web,namespace=shop"
    assert found["seaway_edge_requests_total", f"code=2xx,{shop}"] == 5
    assert found["seaway_edge_requests_total", f"code=5xx,{shop}"] == 1
    assert found["seaway_edge_requests_total", "code=4xx,ingress=,namespace="] == 3
    assert found["seaway_edge_response_bytes_total", shop] == 1e9
    assert found["seaway_edge_retries_total", shop] == 1
    assert found["seaway_edge_ejections_total", "namespace=shop,port=80,service=api"] == 2
    assert found["seaway_edge_connections", "state=active"] == 4
    assert found["seaway_edge_uncounted_total", ""] == 0


def test_a_histogram_adds_up() -> None:
    found = samples(NUMBERS)
    shop = "ingress=web,{},namespace=shop"
    limits = {limit: found["seaway_edge_request_seconds_bucket", shop.format(f"le={limit}")] for limit in ("0.1", "1", "+Inf")}
    assert limits == {"0.1": 4, "1": 4, "+Inf": 6}
    assert found["seaway_edge_request_seconds_count", "ingress=web,namespace=shop"] == 6
    assert found["seaway_edge_request_seconds_sum", "ingress=web,namespace=shop"] == 7.25


def test_requests_that_took_no_time_have_a_histogram_too() -> None:
    found = samples({"shop/web c2": 2, "shop/web t1": 2})
    shop = "ingress=web,namespace=shop"
    assert (found["seaway_edge_request_seconds_count", shop], found["seaway_edge_request_seconds_sum", shop]) == (2, 0)
    assert ("seaway_edge_upstream_seconds_count", shop) not in found


def test_what_is_gone_is_not_shown_and_is_to_be_forgotten() -> None:
    text, gone = exposition(NUMBERS, BUCKETS, {}, THERE.__contains__)
    assert "old" not in text
    assert gone == ("old/gone c2",)
