package http1

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/internal/httpfield"
	"github.com/limpet-go/limpet/internal/httphead"
)

// A failure says why an attempt to send a request got no answer.
type failure struct {
	err           error
	sent, invalid bool // see balancer.Error
	stale         bool // the origin had closed a kept connection, and HTTP allows the request to be sent again
}

// A call is one request on a connection, from its sending until its answer has been
// read or closed. It is the body of that answer. The package's documentation has its
// states and says who moves them.
type call struct {
	client   *Client
	req      *http.Request
	trace    *httptrace.ClientTrace                // nil if there is none
	informed func(int, textproto.MIMEHeader) error // is called for 1xx answers, may be nil
	patience Patience
	letGo    error // why Release has ended the call
	conn     *conn
	upload   *upload // nil for a request without a body

	invalid bool // the request can't be sent, for no fault of the connection
	begun   bool // the first byte of an answer has arrived
	late    bool // it has not arrived within patience.Begin, and the call has ended for that

	mu       sync.Mutex  // guards stopHook and released, which the Canceler uses too
	stopHook func() bool // undoes hook; nil before that
	released bool        // unhook was called, and the context must not be hooked any more

	answer  io.ReadCloser // the answer's body as readAnswer made it
	left    int64         // bytes of it to come, if it is a sized
	bare    bool          // answer has neither length nor chunks: it ends with the connection, lost or not
	idleFor time.Duration // how long the connection may be idle after the answer; 0: it is closed
	broken  error         // why the answer was cut off
	state   atomic.Int32  // answering, settled or abandoned
}

const (
	answering int32 = iota // the connection belongs to the call
	settled                // the answer was read, or broke off; the connection was given back or closed
	abandoned              // the answer was closed before its end, and the connection with it
)

// send makes one attempt to send req and to get its answer. With fresh it uses no kept
// connection.
//
// What it does before and after the wait for the answer is in functions of their own, and
// so it is up to the handler of a gateway: their frames would otherwise lie on the stack
// for as long as a poll waits, and make it twice as large.
func (c *Client) send(req *http.Request, informed func(int, textproto.MIMEHeader) error, p Patience, fresh bool) (*http.Response, *failure) {
	call := &call{client: c, req: req, informed: informed, patience: p, trace: httptrace.ContextClientTrace(req.Context())}
	if failed := call.begin(fresh); failed != nil {
		return nil, failed
	}
	res, err := call.exchange()
	if err != nil {
		return nil, call.failed(err)
	}
	call.receive(res)
	return res, nil
}

// begin gets a connection, and sends the request or begins to. The wait for the answer
// sends the request if it waits in the connection's head.
func (c *call) begin(fresh bool) *failure {
	head, err := c.head()
	if c.invalid = err != nil; !c.invalid {
		err = c.req.Context().Err()
	}
	byAwait := head != nil && (!hasBody(c.req) || isThere(c.req))
	if err == nil {
		c.conn, err = c.client.get(c.req.Context(), c.trace, c.patience.Connect, fresh, byAwait)
	}
	if err != nil {
		closeBody(c.req)
		return &failure{invalid: c.invalid, err: cmp.Or(c.ended(), err)}
	}
	c.client.origin.Canceler.begin(c)
	switch {
	case byAwait && (!hasBody(c.req) || c.conn.queues):
		if err = appendBody(head, c.req); err == nil {
			c.conn.head = head
		}
		c.invalid = err != nil
	case hasBody(c.req):
		c.upload = newUpload(c, head)
	default:
		err = c.write()
	}
	if err != nil {
		return c.failed(err)
	}
	return nil
}

// head returns the head of the request in a buffer of httphead. It is nil if net/http has to
// write the request.
func (c *call) head() (*[]byte, error) {
	if c.trace != nil {
		return nil, valid(c.req)
	}
	room := httphead.Borrow()
	head := httphead.AppendRequest(*room, c.req, c.client.origin.Host)
	if head == nil {
		httphead.Release(room)
		return nil, valid(c.req)
	}
	*room = head
	return room, nil
}

// exchange reads the answer up to its body.
func (c *call) exchange() (*http.Response, error) {
	c.conn.readLeft = maxHeader
	for {
		if err := c.await(); err != nil {
			return nil, err
		}
		res, err := c.readAnswer()
		switch {
		case err != nil && c.conn.readLeft <= 0:
			return nil, errHeader // parsing may have put another error in its place
		case err != nil:
			return nil, err
		case res.StatusCode >= 200, res.StatusCode < 100, res.StatusCode == http.StatusSwitchingProtocols:
			c.conn.readLeft = unlimited
			return res, nil
		}
		if err := c.inform(res); err != nil {
			return nil, err
		}
	}
}

// await returns when the first byte of an answer is there. If the upload waits for a
// 100 that doesn't come, await lets it go on.
func (c *call) await() error {
	if c.upload != nil && c.upload.undecided {
		if err := c.awaitContinue(); err != nil {
			return err
		}
	}
	if err := c.firstByte(); err != nil {
		return err
	}
	if !c.begun && c.trace != nil && c.trace.GotFirstResponseByte != nil {
		c.trace.GotFirstResponseByte()
	}
	c.begun = true
	return nil
}

// awaitContinue returns when the first byte of an answer is there, or when the origin
// has said nothing for so long that the body is sent as if it had said 100. There is no
// limit to how long the rest of an answer may take once it has begun. On a connection
// that has no read deadlines it doesn't wait for a 100 at all.
func (c *call) awaitContinue() error {
	err := c.conn.SetReadDeadline(c.upload.goOnAt)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	if err == nil {
		err = c.conn.await()
		_ = c.conn.SetReadDeadline(time.Time{})
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			return err
		}
	}
	if c.informed != nil {
		if err := c.informed(http.StatusContinue, nil); err != nil {
			return err
		}
	}
	c.upload.decide(true)
	return nil
}

// spelledOut returns the request for http.Request.Write, which writes the scheme and
// host of its URL in some cases: they are the origin's. If the request has a body it is
// a copy, whose body the caller may replace.
func (c *call) spelledOut() *http.Request {
	out := c.req
	if hasBody(out) || out.Host == "" || strings.HasPrefix(out.URL.Opaque, "//") { // else net/http doesn't look at scheme and host
		out = out.WithContext(out.Context())
		url := *out.URL
		url.Scheme, url.Host = c.client.origin.Scheme, c.client.origin.Host
		out.URL = &url
	}
	return out
}

// write sends a request without a body by http.Request.Write.
func (c *call) write() error {
	w := writers.Get().(*bufio.Writer)
	w.Reset(c.conn)
	err := c.spelledOut().Write(w)
	if err == nil {
		err = w.Flush()
	}
	w.Reset(nil)
	writers.Put(w)
	if c.conn.rebuffed() {
		return nil
	}
	c.invalid = err != nil && c.conn.writeErr == nil
	return err
}

// inform passes an informational answer on to the hooks of the request's trace and to
// informed, and lets the upload read the body after a 100. That comes last, so that
// informed can pass the 100 on to the client before anybody reads from it.
func (c *call) inform(res *http.Response) error {
	header := textproto.MIMEHeader(res.Header)
	if c.trace != nil {
		if res.StatusCode == http.StatusContinue && c.trace.Got100Continue != nil {
			c.trace.Got100Continue()
		}
		if c.trace.Got1xxResponse != nil {
			if err := c.trace.Got1xxResponse(res.StatusCode, header); err != nil {
				return err
			}
			c.conn.readLeft = maxHeader // the limit is for each: the hooks may refuse more answers
		}
	}
	if c.informed != nil {
		if err := c.informed(res.StatusCode, header); err != nil {
			return err
		}
		c.conn.readLeft = maxHeader
	}
	if c.upload != nil && res.StatusCode == http.StatusContinue {
		c.upload.decide(true)
	}
	return nil
}

// ended returns why the call must end: its origin is lost or its context has ended. It
// is nil if neither is so.
func (c *call) ended() error {
	return cmp.Or(c.client.origin.lost(), c.req.Context().Err(), c.letGo)
}

// failed ends a call that got no answer, because of err unless there is a deeper reason:
// the connection of a lost origin was closed, for example.
func (c *call) failed(err error) *failure {
	why := c.ended()
	c.unhook()
	var broken *error // loaded before the connection is closed, since that makes the upload fail too
	if c.upload != nil {
		broken = c.upload.err.Load()
	}
	c.conn.close()
	if c.upload != nil {
		c.upload.end(true)
		if broken != nil {
			err = *broken
			c.invalid = c.conn.writeErr == nil
		}
	}
	f := &failure{sent: c.conn.wrote, invalid: why == nil && c.invalid, err: cmp.Or(why, err)}
	f.stale = why == nil && !c.invalid && !c.begun && !c.late && c.conn.reused && (!f.sent || repeatable(c.req))
	c.conn.releaseBuffer()
	return f
}

// receive makes res the answer that RoundTrip returns: it decides whether the
// connection may be kept after it, and puts the call in the place of its body.
func (c *call) receive(res *http.Response) {
	c.client.origin.Answered()
	if c.upload != nil {
		c.upload.decide(false)
	}
	switch {
	case switches(res):
		res.Body = &upgraded{c}
		return
	case !c.conn.early && !res.Close && !c.req.Close && res.StatusCode >= 200 &&
		c.req.Method != http.MethodConnect && !httpfield.HasToken(c.req.Header["Connection"], "close"):
		c.idleFor = c.client.origin.idleTime(res.Header)
	}
	c.answer = res.Body
	if secured, ok := c.conn.Conn.(*tls.Conn); ok {
		state := secured.ConnectionState()
		res.TLS = &state
	}
	c.bare = res.ContentLength < 0 && len(res.TransferEncoding) == 0
	if res.Body == http.NoBody && (c.upload == nil || c.upload.sent()) {
		c.settle()
		return
	}
	res.Body = c
}

// settle ends a call whose answer was read to its end or broke off. It keeps the
// connection for other requests if both messages are complete and nothing follows them,
// and closes it otherwise. The goroutine that has read last calls it.
func (c *call) settle() {
	if !c.state.CompareAndSwap(answering, settled) {
		return
	}
	whole := c.idleFor > 0 && (c.upload == nil || c.upload.sent()) && c.conn.writeErr == nil && c.conn.in.Buffered() == 0
	c.conn.releaseBuffer()
	if c.unhook() && whole {
		c.client.keep(c.conn, c.idleFor)
	} else {
		c.conn.close()
	}
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }
