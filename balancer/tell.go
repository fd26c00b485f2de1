package balancer

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// Tell sends req to b on a connection of its own, drops the answer, and returns its status.
// Unlike RoundTrip it does so even if b is Down: a node whose drain is over, or which the
// operator has put off, may live on and has to learn what became of a client. It makes one
// attempt, within the time of ctx. Errors are of type [*Error].
func (t *Transport) Tell(ctx context.Context, b *Backend, req *http.Request) (status int, err error) {
	conn, err := t.connect(ctx, b)
	if err != nil {
		return 0, &Error{Backend: b.id, Err: cmp.Or(ctx.Err(), err)}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if status, err = tell(conn, req, b.origin.Host); err != nil {
		return 0, &Error{Backend: b.id, Sent: true, Err: cmp.Or(ctx.Err(), err)}
	}
	return status, nil
}

func tell(conn net.Conn, req *http.Request, host string) (status int, err error) {
	out := *req
	out.Host, out.Close = cmp.Or(req.Host, host), true
	if err := out.Write(conn); err != nil {
		return 0, err
	}
	answer := bufio.NewReader(io.LimitReader(conn, 64<<10))
	for {
		res, err := http.ReadResponse(answer, &out)
		if err != nil {
			return 0, err
		}
		if res.StatusCode >= 200 {
			return res.StatusCode, nil
		}
	}
}
