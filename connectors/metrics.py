"""The pipeline's metrics, in one place. Labels have few values: never an id."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_CALL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)

requests_received = Counter("sluice_requests_received_total", "Records read from the request topic.")
requests_ended = Counter("sluice_requests_ended_total", "Requests that reached a terminal state.", ["state", "reason"])
duplicates_ignored = Counter("sluice_duplicates_ignored_total", "Records whose request was known already.", ["stage"])
admission_waits = Counter(
    "sluice_admission_waits_total", "Requests that waited in Kafka because too much was outstanding."
)
overhead_seconds = Histogram(
    "sluice_pipeline_overhead_seconds", "Submitted until settled, less the provider's time.", buckets=_SECONDS
)
waiting_seconds = Histogram(
    "sluice_lane_waiting_seconds", "Queued on a lane until the call began.", ["provider"], buckets=_SECONDS
)
call_seconds = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Provider calls, by outcome.",
    ["provider", "outcome"],
    buckets=_CALL_SECONDS,
)
tokens_used = Counter(
    "gen_ai_client_token_usage_total", "Tokens as the provider counted them.", ["provider", "direction"]
)
calls_in_flight = Gauge("sluice_calls_in_flight", "Provider calls running now.", ["provider"])
possibly_billed_calls = Counter(
    "sluice_possibly_billed_calls_total", "Calls without a delivered answer that may have cost money.", ["provider"]
)
tasks_delayed = Counter(
    "sluice_tasks_delayed_total", "Tasks written to a delay topic, by its delay in seconds.", ["delay_seconds"]
)
commands_carried_out = Counter("sluice_commands_total", "Cancellations carried out.")
own_claims = Counter(
    "sluice_own_claims_total", "Claims that a worker gave to itself because Redis was away.", ["provider"]
)
records_in_flight = Gauge("sluice_records_in_flight", "Records read and not yet done.", ["stage"])
stage_errors = Counter("sluice_stage_errors_total", "Unexpected errors; each is retried.", ["stage"])
waits_for_others = Counter(
    "sluice_waits_for_others_total", "Tries of a step that found Redis or the schema registry away.", ["step"]
)

# What stands between a lane and its provider.
breaker_state = Gauge(
    "sluice_breaker_state",
    "0 closed, 1 half open, 2 open; `model` is empty for the whole provider.",
    ["provider", "model"],
)
breaker_transitions = Counter(
    "sluice_breaker_transitions_total", "Changes of a breaker's state, as this process saw them.", ["provider", "state"]
)
gate_waits = Counter(
    "sluice_gate_waits_total", "Times that a request was told to wait before its call.", ["provider", "reason"]
)
