"""What /metrics tells Prometheus."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily

from ...engines.answer import Answer
from ...engines.bundle.manifest import Manifest
from ...engines.serving import Scheduler

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server.

    Args:
        scheduler: whose queue is shown.
        manifest: of the bundle, for the tokens that its layouts drop.
    """

    def __init__(self, scheduler: Scheduler, manifest: Manifest):
        self._layouts = {layout.name: layout for layout in manifest.layouts}
        self._layers = manifest.language.layers
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "luvc_requests", "Requests by status", ["status"], registry=registry
        )
        self._first = Histogram(
            "luvc_first_token_seconds", "Time to first token", buckets=SECONDS, registry=registry
        )
        self._tokens = Counter("luvc_tokens", "Tokens by kind", ["kind"], registry=registry)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "luvc_running": ("Requests that hold a row of the caches", lambda: scheduler.running),
            "luvc_waiting": ("Requests that wait for a row", lambda: scheduler.waiting),
            "luvc_conversations": (
                "Conversations kept between turns",
                lambda: len(scheduler.conversations),
            ),
            "luvc_conversation_bytes": (
                "Host memory of these conversations",
                lambda: scheduler.conversations.bytes,
            ),
            "luvc_prefixes": ("Prefixes of prompts kept", lambda: len(scheduler.prefixes)),
            "luvc_prefix_bytes": (
                "Host memory of these prefixes",
                lambda: scheduler.prefixes.bytes,
            ),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)
        registry.register(PrefixCounters(scheduler))

    def ended(self, status: int) -> None:
        """A request was answered or refused."""
        self._requests.labels(str(status)).inc()

    def answered(self, answer: Answer) -> None:
        """Count an answer's tokens; visual tokens kept are the mean over the language model's layers."""
        self._first.observe(answer.timing.first_token_ms / 1e3)
        layout = self._layouts[answer.layout]
        entered = answer.visual_tokens
        by_layer = layout.schedule.visual_per_layer(self._layers, entered)
        kept = sum(by_layer) / self._layers
        counts = {
            "prompt": answer.prompt_tokens,
            "completion": len(answer.token_ids),
            "cached": answer.reused_tokens,
            "visual": entered,
            "visual_kept": kept,
            "visual_dropped": layout.baseline_visual_tokens - kept if entered else 0,
        }
        for kind, count in counts.items():
            self._tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class PrefixCounters:
    """What the scheduler counts of prefixes, as a collector of prometheus_client.

    Args:
        scheduler: whose.
    """

    def __init__(self, scheduler: Scheduler):
        self._prefixes = scheduler.prefixes

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counters as they are now."""
        kept = self._prefixes
        counts = {
            "hits": ("Requests that went on from a kept prefix", kept.hits),
            "misses": ("Requests that ran a prefix", kept.misses),
            "evictions": ("Prefixes that had to go for others", kept.evicted),
        }
        for name, (text, value) in counts.items():
            yield CounterMetricFamily(f"luvc_prefix_{name}", text, value=value)
