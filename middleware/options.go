package middleware

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/upgrade"
)

// Options are the settings of a Gateway. The zero value, and nil, are good defaults.
type Options struct {
	// Affinity finds the backend that a client belongs to. Default: an
	// [affinity.EngineIO] for the sessions of Socket.IO, whose clients outside of
	// browsers keep no cookies, and an [affinity.Cookie] for everybody, both with a
	// random secret. That works for a single process, until it ends, and a warning
	// says so. Replicas need a secret of 32 random bytes that they share:
	//
	//	secrets := [][]byte{secret}
	//	affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}
	//
	// The EngineIO looks at requests with the query parameter EIO only, or with a
	// session ID that it has tagged itself.
	Affinity affinity.Affinity

	// Handover is what [Takeover] has returned, nil for a gateway that isn't handed over to
	// the process that takes its place. It belongs to one gateway.
	Handover *Handover

	// Transport connects to the backends, for plain requests and tunnels. Default:
	// the pool's own, which its health checks use too.
	Transport *balancer.Transport

	// Upgrade holds the limits of tunnels. The gateway sets its Dial field and owns
	// the value from then on, so that two gateways can't share one.
	Upgrade *upgrade.Proxy

	// ClientIP says which peers are trusted to report a client's address and whether
	// it used TLS.
	ClientIP ClientIP

	// Gone says what happens to a client whose home is gone. WaitFor is how long
	// GoneWait waits, by default 5 s.
	Gone    Gone
	WaitFor time.Duration

	// Retry limits how often failed requests are sent again.
	Retry Retry

	// MaxBody is how many bytes a request's body may have, 0 for any number. A
	// request with a longer one is answered with 413, and an HTTP/1 connection is
	// closed. That happens at once if Content-Length is too large, and otherwise when
	// the body crosses the limit. An answer that has begun by then breaks off.
	//
	// MaxBody is better than a limit in front of the gateway, such as
	// [http.MaxBytesHandler] or chi's RequestSize. A body that a middleware has
	// wrapped might write to the client when it is read. The gateway can't know. So an
	// answer that begins before the end of such a body is held back until the backend
	// has all of the body, or the answer is complete. An answer of which 64 KiB are
	// there before that ends the upload instead, and is broken off if the backend is
	// silent for 30 s after that. Informational answers (1xx) that come while such a
	// body is read are dropped.
	MaxBody int64

	// BackendHost sends the backend's own host in the Host field instead of
	// the client's.
	//
	// A backend that compares the Origin of a WebSocket's handshake with the Host then
	// refuses browsers.
	BackendHost bool

	// Rewrite may change the path, the header and the Host of the outgoing request,
	// after the gateway has prepared it. It runs once for each request, however many
	// attempts follow. The backend isn't known yet.
	//
	// A Rewrite that changes URL.Path must change URL.RawPath too, as
	// [url.URL.JoinPath] does. If it doesn't, and the client had escaped a character
	// that means something else when it isn't escaped, such as %2F, the request is
	// refused with 400.
	Rewrite func(in, out *http.Request)

	// ModifyResponse may change a backend's answer, including a 101, before it is
	// sent to the client. If it returns an error the client gets ErrorHandler's answer
	// instead. [balancer.BackendFromContext] returns the backend that answered, given
	// res.Request.Context(). It returns nil for the answer of the affinity to a session
	// whose node is gone (see [affinity.GoneHandler]), which ModifyResponse may change too.
	ModifyResponse func(res *http.Response) error

	// ErrorHandler writes the gateway's own answer when no backend has given one.
	// [StatusCode] returns the status for err. Default: that of [ErrorPages] without
	// files, a short answer in the format that the client prefers. While somebody observes
	// the gateway, w is a wrapper of the server's writer: [http.ResponseController] flushes
	// it, and a type assertion to http.Flusher fails.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// PinHeader is the name of a field that is added to each answer, such as
	// "Limpet-Pin", or "" for none. Its value says what became of the client's pin:
	//
	//	hit      the client came to its home
	//	new      the client had no pin
	//	moved    the client's home is gone, and it has a new one
	//	expired  the pin was too old, and the client has a new home
	//	forged   the pin was not made with one of the secrets, likewise
	//	unknown  the pin names nothing that is known here, likewise
	//
	// With an affinity that remembers nothing, such as [affinity.Hash], every client
	// is new.
	PinHeader string

	// Bus connects this gateway with its replicas, which are the other gateways in
	// front of the same backends. They share the operator's decisions and
	// CloseSession, as [Gateway.Run] describes, and nothing else. Everybody who can
	// publish on the bus can turn backends off. nil: this gateway has no replicas.
	Bus bus.Bus

	// BusTopic is the topic that the replicas use. Gateways in front of other
	// backends need another one if they use the same bus. Default: "limpet:gateway".
	BusTopic string

	// Name is this gateway's name among its replicas, for the status page and metrics.
	// Default: the name of the host.
	Name string

	// RequestID is the name of a field that identifies each request, such as
	// "X-Request-Id", or "" for none. A value that the client has sent is kept if it
	// has 1 to 128 of the visible ASCII characters; anybody can send one, so that it
	// proves nothing. Otherwise a random one of 26 characters is made. The backend gets it, the
	// answer has it, and so has the gateway's own answer before ErrorHandler is called.
	RequestID string

	// LameDuck is how long [Gateway.Serve] goes on serving after its context has ended,
	// while [Gateway.Ready] already returns an error. It should be longer than a load
	// balancer needs to notice that, such as a few seconds. Default: 0, the drain
	// begins at once.
	LameDuck time.Duration

	// Rebalance is the time within which a backend that has joined or come back gets its
	// share of the long-lived clients, those with a tunnel or a session that polls.
	// Otherwise it gets new clients only, so that the one that was restarted last has none.
	// 2 minutes is a good choice. Default: 0, nobody is moved.
	//
	// It begins when a backend has come Up, was added or has another weight. It waits
	// while a backend is in a drain with a deadline, and for a twelfth of the time, 10 s at
	// most, after the last such change. It ends when no backend has much less than its
	// share by its weight: when it lacks less than a twentieth, or no more than chance
	// would make it lack, which is 10 clients of 100. Clients move within their backend's group only.
	//
	// A client that is moved leaves as in a drain, and is led to its new home when it comes
	// back. It is chosen by its key, and not twice within an hour. A client that can be
	// recognized by its session only comes back as a new one, and new clients are led to
	// that home in its place. Never moved are clients whose home isn't the gateway's own
	// choice, or to which they would come back: see [affinity.Mover].
	//
	// Replicas on a Bus that all have this option share the work. One that hasn't heard
	// of another for some seconds waits.
	Rebalance time.Duration

	// Logger gets a warning of requests that failed, at most one a second, and one
	// of each setting that turns out to be wrong. Default: slog.Default().
	Logger *slog.Logger
}
