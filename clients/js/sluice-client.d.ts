/** Types of sluice-client.js. Frames are described by docs/websocket.md and docs/websocket.schema.json. */

export type State =
  | "queued" | "processing" | "retry_scheduled" | "completed" | "failed" | "expired" | "cancelled" | "rejected";

export interface Where { states?: State[]; providers?: string[]; tenant_ids?: string[] }

export interface SubscriptionOptions { deltas?: boolean; where?: Where; limit?: number }

export type Selection =
  | { request_ids: string[] }
  | { correlation_id: string }
  | { user_id: string }
  | { tenant_id: string }
  | { all: true }
  | { lanes: true }
  | { dead_letters: true };

export type Subscription = Selection & SubscriptionOptions;

export interface StatusEvent {
  type: string; request_id: string; tenant_id: string; state: State; state_version: number; attempt: number;
  occurred_at: string; submitted_at: string; possibly_billed_calls: number;
  user_id?: string; correlation_id?: string; kind?: string; provider?: string; model?: string;
  reason?: string; message?: string; retry_at?: string; [field: string]: unknown;
}

export interface AttemptSummary {
  attempt: number; provider: string; model: string; outcome: "answered" | "failed" | "lost"; category?: string;
  started_at: string; duration_ms: number; time_to_first_token_ms?: number; cost_usd?: number; possibly_billed: boolean;
}

export interface Timings {
  queued_ms: number; waiting_ms: number; provider_ms: number; overhead_ms: number; total_ms: number;
}

export interface ResultSummary {
  request_id: string; tenant_id: string; state: State; state_version: number; provider?: string; model?: string;
  finish_reason?: string; category?: string; cost_usd?: number; attempts: AttemptSummary[]; timings: Timings;
  usage?: { input_tokens: number; output_tokens: number; cached_input_tokens: number };
  possibly_billed_calls: number; submitted_at: string; finished_at: string;
}

export interface Lane {
  provider: string; workers: number; in_flight: number; concurrency: number; waiting: number; backlog: number;
  breaker: { state: "closed" | "half_open" | "open"; since?: string; retry_at?: string; reason?: string };
  answered_per_second: number; failed_per_second: number; call_ms_p50?: number; call_ms_p95?: number;
  about_wait_ms?: number; shared_state_away: boolean; reported_at: string;
}

/** A lane's numbers over the last minutes, by column, oldest first; `at` in seconds since 1970. */
export interface LaneHistory {
  provider: string; at: number[]; breaker: ("closed" | "half_open" | "open")[]; backlog: number[]; in_flight: number[];
  answered_per_second: number[]; failed_per_second: number[];
  call_ms_p50: (number | null)[]; call_ms_p95: (number | null)[];
}

/** What was done with a dead letter. */
export interface Mark { action: "redriven" | "purged" | "unknown"; at: string; by?: string }

/** Without `mark` it is open. */
export interface DeadLetterEntry {
  partition: number; offset: number; at: string; mark?: Mark;
  letter: { request_id?: string; tenant_id?: string; category: string; message: string; [field: string]: unknown };
}

/** `snapshot`: it came as part of one. */
interface FromSnapshot { snapshot?: true }

export type StatusPush = FromSnapshot & { type: "status"; event: StatusEvent };
export type ResultPush = FromSnapshot & { type: "result"; result: ResultSummary };
export type DeltaPush = { type: "delta"; request_id: string; attempt: number; seq: number; last_seq: number; text: string };
/** What came of an answer so far: replaces the text that is shown. */
export type TextPush = Omit<DeltaPush, "type"> & { type: "text"; snapshot: true };
export type VoidPush = { type: "void"; request_id: string; attempt: number; superseded_by: number };
export type QueuePush = FromSnapshot & {
  type: "queue"; request_id: string; provider: string; about_position: number; about_wait_ms: number | null;
};
export type LanePush = FromSnapshot & { type: "lane"; lane: Lane };
export type LaneHistoryPush = { type: "lane_history"; history: LaneHistory; snapshot: true };
export type DeadLetterPush = FromSnapshot & { type: "dead_letter"; dead_letter: DeadLetterEntry };
export type DeadLetterMarkPush = { type: "dead_letter_mark"; partition: number; offset: number; mark: Mark };
/** The bridge does not know this request, or it may not be seen. */
export type UnknownPush = { type: "unknown"; request_id: string; snapshot: true };
export type Feed = "starting" | "catching_up" | "live" | "away";
export type FeedPush = { type: "feed"; feed: Feed };
/** What was missed cannot be sent. A fresh snapshot follows, and then `replaced`. */
export type GapPush = { type: "gap"; gap: "expired" | "too_much" | "invalid" | "unavailable" };
/** The requests of the snapshot after a gap. What you show beside them, the bridge does not know any more. */
export type ReplacedPush = { type: "replaced"; request_ids: Set<string> };
/** A subscription was refused, and is not followed. */
export type RefusedPush = { type: "refused"; subscription: Selection; error: CommandError };
export type StatePush = { type: "state"; state: ConnectionState };
export type HelloPush = { type: "hello"; time: string; feed: Feed; viewer: Viewer | null; limits: object };

/** Whom the bridge takes us for, on each connection, before anything is subscribed to. */
export type ViewerPush = { type: "viewer"; viewer: Viewer };

export type Push =
  | StatusPush | ResultPush | DeltaPush | TextPush | VoidPush | QueuePush | LanePush | LaneHistoryPush
  | DeadLetterPush | DeadLetterMarkPush | UnknownPush
  | FeedPush | GapPush | ReplacedPush | RefusedPush | StatePush | HelloPush | ViewerPush;

export interface ConnectionState {
  name: "idle" | "connecting" | "resuming" | "live" | "waiting" | "closed";
  since: number; reason?: string; code?: number; retryAt?: number;
}

export interface Viewer {
  scope: "ids" | "user" | "tenant" | "operator"; user_id: string | null; tenant_id: string | null; expires_at: string | null;
}

export interface Options {
  /** Fetches a fresh ticket: on each connect where the bridge asks for one, and before it expires. */
  getTicket?: () => Promise<string> | string;
  /** Of so many requests is remembered how far they have come. 50,000. */
  rememberedRequests?: number;
  WebSocket?: typeof WebSocket;
  random?: () => number;
}

export declare class CommandError extends Error { readonly code: string; readonly field: string | null }

export declare class SluiceClient {
  constructor(url: string | URL, options?: Options);
  readonly state: ConnectionState;
  readonly isLive: boolean;
  readonly feed: Feed;
  readonly viewer: Viewer | null;
  readonly heardAt: number | null;
  readonly clockOffsetMs: number;
  connect(): void;
  close(): void;
  subscribe(subscription: Subscription): Promise<void>;
  unsubscribe(selection: Selection): Promise<void>;
  ping(): Promise<void>;
  on<T extends Push["type"]>(type: T, listener: (push: Extract<Push, { type: T }>) => void): () => void;
  on(type: "*", listener: (push: Push) => void): () => void;
  events(options?: { requestId?: string; limit?: number }): AsyncIterableIterator<Push>;
}

export declare class Transcript {
  readonly attempt: number;
  readonly text: string;
  readonly hasHole: boolean;
  readonly voided: { attempt: number; text: string }[];
  apply(push: DeltaPush | TextPush | VoidPush): boolean;
}

export declare const TERMINAL_STATES: ReadonlySet<State>;
export declare function mayReconnect(code: number): boolean;
export declare function backoffMs(failures: number, random?: () => number): number;
