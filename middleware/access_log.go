package middleware

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"
)

// AccessLogOptions are the settings of an access log. The zero value, and nil, are good
// defaults.
type AccessLogOptions struct {
	// Query adds the query string. It may hold secrets, such as tokens, and the session
	// IDs of Socket.IO's clients.
	Query bool

	// Header names fields of the request that are added, such as User-Agent and Referer,
	// as the group "header".
	Header []string

	// Sample is the share of the requests that are logged, such as 0.01. All are logged
	// if it isn't between 0 and 1. A request that didn't go well is always logged: one
	// with a status of 500 or more, with an end other than "--", with more than one
	// attempt, or in a session that its backend doesn't know. A tunnel is chosen if its
	// request was, and always if its end isn't "--".
	Sample float64
}

// AccessLog returns an observer that writes a line to logger for each request, at its
// end, and one for each tunnel, when it is closed:
//
//	stop := gateway.Observe(limpet.AccessLog(slog.New(slog.NewJSONHandler(os.Stdout, nil)), nil))
//
// The lines have the level Info. nil is slog.Default(). They have these attributes, whose
// names don't change; those in brackets are left out when they are empty, zero or false.
// The last column names what HAProxy's httplog has for the same.
//
//	msg              "request", or "tunnel" when a tunnel was closed     -
//	[id]             the request's ID, see Options.RequestID             %ID
//	[client]         the client's address, see ClientIP                  client_ip
//	method           the method                                          http_request
//	[host]           the Host field, or :authority                       captured header
//	path             the path, escaped as in a URL, without the query    http_request
//	[query]          the query, with AccessLogOptions.Query              http_request
//	proto            the protocol, such as HTTP/1.1                      http_request
//	status           101 for a tunnel; 499 if the client left first      status_code
//	source           who answered: backend, affinity, gateway, none      - (<NOSRV>)
//	end              how it ended, in two letters, see below             termination_state
//	[backend]        the ID of the backend that answered or failed last  server_name
//	[pin]            the word of Options.PinHeader, see below            termination_state
//	[attempts]       how often it was sent to a backend, unless once     retries + 1
//	[received]       bytes of the request's body                         - (%U has the header, too)
//	sent             bytes of the answer's body                          bytes_read (with the header)
//	[picked_us]      microseconds until a backend was picked, from 1000  Tw
//	first_byte_us    the same until the header of the answer was there   Tw + Tc + Tr
//	duration_us      the same until the end                              Ta
//	[unknown_session] a backend doesn't know the session                 -
//	[err]            why it failed, with the names of backends           -
//	[header]         see AccessLogOptions.Header                         captured_request_headers
//
// A request that becomes a tunnel has its line at once, with status 101, and the tunnel
// one of its own later. That has id, client, path, backend, end, duration_us and err as
// above, and these:
//
//	by                 who ended it: client, backend or gateway
//	[code]             of the first close frame of a WebSocket
//	[reason]           of the gateway
//	received, sent     bytes from and to the client, behind the handshake
//	messages_received  whole messages from the client
//	messages_sent      whole messages to the client
//
// # How requests end
//
// The two letters of end are HAProxy's. The first one says who or what ended the request,
// the second one in which phase:
//
//	--  in order
//	CR  the client left before it was sent to a backend
//	CQ  the client left while it waited for its home to come back (GoneWait), or for room there
//	    ([balancer.Limit])
//	CC  the client left while a connection to a backend was made
//	CH  the client left while the backend had not answered
//	CD  the client left, or its connection broke, within the request's body, the answer or
//	    the tunnel
//	cD  the client was too slow to send the body; or the tunnel was idle for too long
//	SC  no backend could be reached, or none was up
//	SH  the backend failed before the header of its answer was there
//	SD  the backend failed within its answer or the tunnel
//	sQ  a time limit of a handler in front ended it while it waited for its home; or it waited
//	    in vain for room at a backend, or found the queue full
//	sC  a time limit ended it while a connection to a backend was made
//	sH  the same while the backend had not answered
//	sD  the same within the answer
//	DH  the backend was found dead while the request waited for its answer
//	DD  the tunnel was closed since its backend was found dead
//	KD  the gateway closed the tunnel: a drain, its own end, its maximum age, CloseSession
//	PR  the gateway refused the request: it is malformed, too large or a CONNECT
//	PC  the gateway refused the connection: it shuts down, or it can't make the tunnel or
//	    the request
//	PH  the gateway refused the answer, as ModifyResponse may
//	PD  the gateway closed the tunnel for a message that is too large or breaks the protocol
//	LR  the affinity answered, as to a session whose node is gone
//	I-  a hook has panicked before there was an answer
//
// HAProxy's third and fourth letter say what became of the cookie. That is pin: hit is V
// (valid), new NI (none, inserted), moved DI or DU (the server is down), expired EI,
// forged and unknown II (invalid).
//
// # What isn't logged
//
// Of the client there are its address and what its request line and Host say; of its pin
// only the word, never the key; nothing of bodies and cookies. Characters that can't be
// printed are replaced, and what is longer than 1 KiB is cut, so that nobody can write
// lines of their own into the log or fill it at once.
//
// A line is written on the goroutine that serves the client, and for a short answer before
// the last of it is sent. A handler that blocks delays that.
func AccessLog(logger *slog.Logger, opts *AccessLogOptions) Observer {
	if logger == nil {
		logger = slog.Default()
	}
	l := &accessLog{to: logger.Handler(), seed: maphash.MakeSeed(), sample: 1}
	switch l.to.(type) {
	case *slog.JSONHandler, *slog.TextHandler:
		l.keepsNothing = true
	}
	if opts != nil {
		l.query = opts.Query
		for _, name := range opts.Header {
			l.header = append(l.header, http.CanonicalHeaderKey(name))
		}
		if 0 < opts.Sample && opts.Sample < 1 {
			l.sample = opts.Sample
		}
	}
	return Observer{Request: l.request, Closed: l.closed}
}

type accessLog struct {
	to     slog.Handler // Logger's methods would look for the line of code, which is always here
	query  bool
	header []string // in their canonical form
	sample float64  // 1: all
	seed   maphash.Seed

	keepsNothing bool // the handler has no use for a record after it has returned
}

// inOrder is the end of a request or a tunnel with which nothing went wrong.
const inOrder = "--"

func (l *accessLog) request(rec *Record) {
	r := rec.Request
	ctx := r.Context()
	if !l.to.Enabled(ctx, slog.LevelInfo) {
		return
	}
	end := requestEnd(rec)
	fine := end == inOrder && rec.Status < 500 && len(rec.Attempts) <= 1 && !rec.UnknownSession
	if fine && !l.chosen(rec.ID, rec.Start) {
		return
	}
	line := logLines.Get().(*logLine)
	line.text("id", rec.ID)
	line.address("client", rec.ClientIP)
	line.always("method", slog.StringValue(visible(r.Method)))
	line.text("host", r.Host)
	line.always("path", slog.StringValue(visible(r.URL.EscapedPath())))
	if l.query {
		line.text("query", r.URL.RawQuery)
	}
	line.always("proto", slog.StringValue(r.Proto))
	line.always("status", slog.IntValue(rec.Status))
	line.always("source", slog.StringValue(rec.Source.String()))
	line.always("end", slog.StringValue(end))
	if rec.Backend != nil {
		line.text("backend", rec.Backend.ID())
	}
	line.text("pin", rec.Outcome)
	if n := len(rec.Attempts); n != 1 {
		line.always("attempts", slog.IntValue(n))
	}
	if rec.Received > 0 {
		line.always("received", slog.Int64Value(rec.Received))
	}
	line.always("sent", slog.Int64Value(rec.Sent))
	if rec.Picked >= time.Millisecond {
		line.always("picked_us", slog.Int64Value(rec.Picked.Microseconds()))
	}
	line.always("first_byte_us", slog.Int64Value(rec.FirstByte.Microseconds()))
	line.always("duration_us", slog.Int64Value(rec.Duration.Microseconds()))
	if rec.UnknownSession {
		line.always("unknown_session", slog.BoolValue(true))
	}
	line.err(rec.Err)
	if group := l.fields(r.Header); len(group) > 0 {
		line.always("header", slog.GroupValue(group...))
	}
	l.write(ctx, rec.Start.Add(rec.Duration), "request", line)
}

func (l *accessLog) closed(rec *TunnelRecord) {
	ctx := context.Background()
	if !l.to.Enabled(ctx, slog.LevelInfo) {
		return
	}
	end := tunnelEnd(rec)
	if end == inOrder && !l.chosen(rec.ID, rec.Start) {
		return
	}
	line := logLines.Get().(*logLine)
	line.text("id", rec.ID)
	line.address("client", rec.ClientIP)
	line.always("path", slog.StringValue(visible(rec.Path)))
	line.text("backend", rec.Backend.ID())
	line.always("end", slog.StringValue(end))
	line.always("by", slog.StringValue(rec.By.String()))
	if rec.Code != 0 {
		line.always("code", slog.IntValue(rec.Code))
	}
	line.text("reason", rec.Reason)
	line.always("received", slog.Int64Value(rec.ToBackend))
	line.always("sent", slog.Int64Value(rec.ToClient))
	line.always("messages_received", slog.Int64Value(rec.MessagesToBackend))
	line.always("messages_sent", slog.Int64Value(rec.MessagesToClient))
	line.always("duration_us", slog.Int64Value(rec.Summary.Duration.Microseconds()))
	line.err(rec.Err)
	l.write(ctx, time.Now(), "tunnel", line)
}

// write writes the line and takes it back. A group without a name stands for its members:
// the record then needs no memory of its own for them, but shares that of the line, which
// only a handler may see that keeps no record.
func (l *accessLog) write(ctx context.Context, at time.Time, msg string, line *logLine) {
	attrs := line.attrs[:line.n]
	r := slog.NewRecord(at, slog.LevelInfo, msg, 0)
	if l.keepsNothing {
		r.AddAttrs(slog.Attr{Value: slog.GroupValue(attrs...)})
	} else {
		r.AddAttrs(attrs...)
	}
	_ = l.to.Handle(ctx, r) // as slog.Logger does: there is nobody to tell
	clear(attrs)
	line.n = 0
	logLines.Put(line)
}

// chosen reports whether the sample has a request and its tunnel. It depends on the ID, so
// that what has the same one is there as a whole or not at all. The seed keeps clients from
// making IDs that are never chosen.
func (l *accessLog) chosen(id string, start time.Time) bool {
	if l.sample == 1 {
		return true
	}
	hash := maphash.String(l.seed, id)
	if id == "" {
		hash = maphash.Comparable(l.seed, start.UnixNano())
	}
	return float64(hash>>11)/(1<<53) < l.sample
}

// fields returns the fields of the request that are to be logged.
func (l *accessLog) fields(h http.Header) []slog.Attr {
	var group []slog.Attr
	for _, name := range l.header {
		if values := h[name]; len(values) > 0 {
			group = append(group, slog.String(name, visible(strings.Join(values, ", "))))
		}
	}
	return group
}

// A logLine is what a line of an access log says. It has room for all attributes that a
// request's line can have.
type logLine struct {
	attrs [21]slog.Attr
	n     int
}

var logLines = sync.Pool{New: func() any { return new(logLine) }}

func (l *logLine) always(name string, value slog.Value) {
	l.attrs[l.n] = slog.Attr{Key: name, Value: value}
	l.n++
}

// text adds a string that isn't empty.
func (l *logLine) text(name, value string) {
	if value != "" {
		l.always(name, slog.StringValue(visible(value)))
	}
}

func (l *logLine) address(name string, addr netip.Addr) {
	if addr.IsValid() {
		l.always(name, slog.StringValue(addr.String()))
	}
}

func (l *logLine) err(err error) {
	if err != nil {
		l.text("err", err.Error())
	}
}

// logLimit is how many bytes of a string are logged.
const logLimit = 1 << 10

// visible returns s, cut to logLimit, with a replacement for each character that can't be
// printed. JSON may hold some of those that a terminal obeys.
func visible(s string) string {
	s = s[:min(len(s), logLimit)]
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return strings.Map(func(r rune) rune {
				if unicode.IsPrint(r) {
					return r
				}
				return unicode.ReplacementChar
			}, s)
		}
	}
	return s
}
