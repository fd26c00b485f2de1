package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// Each permission to release a request releases one, even if the answer to another one comes
// just when it is given.
func TestReleaseWastesNoPermission(t *testing.T) {
	t.Parallel()
	for range 20 { // which of two requests is released first is left to chance
		synctest.Test(t, func(t *testing.T) {
			answer := make(chan struct{})
			tr := &balancer.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					defer far.Close()
					req, err := http.ReadRequest(bufio.NewReader(far))
					if err == nil && req.URL.Path == "/answered" {
						<-answer
						io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
					io.Copy(io.Discard, far)
				}()
				return near, nil
			}}
			p := newPool(t, &balancer.Options{Transport: tr}, "a")
			get := func(path string) <-chan error {
				over := make(chan error, 1)
				go func() {
					req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test"+path, nil)
					if err == nil {
						var res *http.Response
						if res, err = tr.RoundTripWithin(p.Get("a"), req, nil, balancer.Patience{Movable: true}); err == nil {
							defer res.Body.Close()
						}
					}
					over <- err
				}()
				return over
			}
			answered, held := get("/answered"), get("/held")
			time.Sleep(time.Second) // to look at a pipe takes a moment
			asked := 0
			tr.Release(p.Get("a"), func() bool {
				if asked++; asked == 1 {
					close(answer)
					if err := <-answered; err != nil {
						t.Error(err)
					}
				}
				return true
			})
			if err := <-held; !errors.Is(err, balancer.ErrLost) || asked != 1 {
				t.Errorf("one request waited: %d permissions were asked for, and it ended with %v", asked, err)
			}
		})
	}
}
