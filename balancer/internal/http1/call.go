package http1

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// A failure is how an attempt ended that got no answer.
type failure struct {
	err           error
	sent, invalid bool // see balancer.Error
	stale         bool // a kept connection was closed, and nothing speaks against sending the request again
}

// A call is one request on a connection, until its answer was read or abandoned up.
// It is the body of that.
type call struct {
	client   *Client
	req      *http.Request
	trace    *httptrace.ClientTrace                // nil if there is none
	informed func(int, textproto.MIMEHeader) error // of 1xx answers, nil for trace's
	conn     *conn
	upload   *upload // nil for a request without a body

	invalid bool // the request can't be sent, for no fault of the connection
	begun   bool // the answer has begun

	mu       sync.Mutex  // over what the watch has to do with it
	stopHook func() bool // stops the end of the request's context from ending the call, nil if that isn't told
	released bool        // nothing may end it from outside any more

	answer  io.ReadCloser // the body as http.ReadResponse made it
	bare    bool          // which has neither length nor chunks: its end looks like any lost connection
	idleFor time.Duration // how long the connection may then be idle, 0 to close it
	broken  error         // why it was cut off
	state   atomic.Int32
}

const (
	answering int32 = iota // the connection is the call's
	settled                // it isn't any more
	abandoned              // the answer was closed before its end
)

// send is one attempt of RoundTrip's.
func (c *Client) send(req *http.Request, informed func(int, textproto.MIMEHeader) error, fresh bool) (*http.Response, *failure) {
	ctx := req.Context()
	call := &call{client: c, req: req, informed: informed, trace: httptrace.ContextClientTrace(ctx)}
	var head []byte // nil: net/http writes the request
	if call.trace == nil {
		room := heads.Get().(*[]byte)
		defer heads.Put(room)
		head = appendHead((*room)[:0], req, c.origin.Host)
		if cap(head) > cap(*room) && cap(head) <= 16<<10 { // a larger one was rare
			*room = head
		}
	}
	var err error
	if head == nil {
		err = valid(req)
	}
	if call.invalid = err != nil; !call.invalid {
		err = ctx.Err()
	}
	if err == nil {
		call.conn, err = c.get(ctx, call.trace, fresh, head != nil && !hasBody(req))
	}
	if err != nil {
		closeBody(req)
		return nil, &failure{invalid: call.invalid, err: cmp.Or(call.ended(), err)}
	}
	c.origin.Canceler.begin(call)
	res, err := call.exchange(head)
	if err != nil {
		return nil, call.failed(err)
	}
	call.receive(res)
	return res, nil
}

// exchange sends the request and reads the answer, up to its body.
func (c *call) exchange(head []byte) (*http.Response, error) {
	switch {
	case hasBody(c.req):
		c.upload = newUpload(c, head)
	case head != nil:
		c.conn.head = head
	default:
		if err := c.write(); err != nil {
			return nil, err
		}
	}
	c.conn.readLeft = maxHeader
	for {
		if err := c.await(); err != nil {
			return nil, err
		}
		res, err := http.ReadResponse(c.conn.in, c.req)
		switch {
		case err != nil && c.conn.readLeft <= 0:
			return nil, errHeader // which parsing may have hidden
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

// await returns when something of an answer is there. With the upload's gate shut it
// opens that if it takes too long.
func (c *call) await() error {
	if c.upload != nil && c.upload.undecided {
		if err := c.awaitContinue(); err != nil {
			return err
		}
	}
	if _, err := c.conn.in.Peek(1); err != nil {
		return err
	}
	if !c.begun && c.trace != nil && c.trace.GotFirstResponseByte != nil {
		c.trace.GotFirstResponseByte()
	}
	c.begun = true
	return nil
}

// awaitContinue returns when something of an answer is there, or the backend has said
// nothing for so long that the body is sent as if it had said 100. The header of an
// answer that has begun is waited for as that of any other.
func (c *call) awaitContinue() error {
	_ = c.conn.SetReadDeadline(c.upload.goOnAt) // which fails on a closed connection; the reading tells
	_, err := c.conn.in.Peek(1)
	_ = c.conn.SetReadDeadline(time.Time{})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if c.informed != nil {
		if err := c.informed(http.StatusContinue, nil); err != nil {
			return err
		}
	}
	c.upload.decide(true)
	return nil
}

// spelledOut returns the request for http.Request.Write: with the backend's scheme
// and host, and a body if it has one that the caller may replace.
func (c *call) spelledOut() *http.Request {
	out := c.req
	if hasBody(out) || out.Host == "" || strings.HasPrefix(out.URL.Opaque, "//") { // else scheme and host aren't written
		out = out.WithContext(out.Context())
		url := *out.URL
		url.Scheme, url.Host = c.client.origin.Scheme, c.client.origin.Host
		out.URL = &url
	}
	return out
}

// write sends a request without a body.
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

// inform passes an informational answer on. After a 100 the upload may read: last, so
// that whoever is told can tell the client before that.
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
			c.conn.readLeft = maxHeader // how many there may be is for the hooks to judge
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

// ended returns why the call can't go on, nil if neither its backend is lost nor
// its context has ended.
func (c *call) ended() error {
	return cmp.Or(c.client.origin.lost(), c.req.Context().Err())
}

// failed ends a call that got no answer.
func (c *call) failed(err error) *failure {
	why := c.ended()
	c.unhook()
	var broken *error // before the connection is closed, by which the upload breaks too
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
	f.stale = why == nil && !c.invalid && !c.begun && c.conn.reused && (!f.sent || repeatable(c.req))
	c.conn.releaseBuffer()
	return f
}

// receive makes res the answer that RoundTrip returns.
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

// settle ends a call whose answer was read to its end, and keeps its connection
// for others if it is fit for that. The goroutine of the last Read calls it.
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
