package middleware_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Sessions that reach a node which doesn't know them are traced, counted and
// warned of, by the gateway that sent them there.
func TestUnknownSessions(t *testing.T) {
	t.Parallel()
	cookie := &affinity.Cookie{Secrets: testKeys}
	for _, tt := range []struct {
		name string
		in   func(*affinity.EngineIO) affinity.Affinity
	}{
		{"alone", func(e *affinity.EngineIO) affinity.Affinity { return e }},
		{"in a chain", func(e *affinity.EngineIO) affinity.Affinity { return affinity.Chain{e, cookie} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes, engines := engines(t, 2)
			engineio := engineIO()
			other := &affinity.EngineIO{Secrets: [][]byte{[]byte("the key of a replica that was set up alone")}}

			type replica struct {
				srv     *httptest.Server
				gw      *limpet.Gateway
				log     bytes.Buffer
				strayed atomic.Int64
				ended   atomic.Int64
			}
			replicas := make([]replica, 3)
			for i, e := range []*affinity.EngineIO{engineio, engineio, other} {
				rep := &replicas[i]
				srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{
					Affinity: tt.in(e),
					Logger:   slog.New(slog.NewTextHandler(&rep.log, nil)),
				})
				gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) {
					if !rec.SessionEnded && !rec.UnknownSession {
						return
					}
					if rec.Request.URL.Query().Get("sid") == "" || nodes[rec.Backend.ID()] == nil {
						t.Errorf("%v at %v", rec.Request.URL, rec.Backend)
					}
					if rec.SessionEnded {
						rep.ended.Add(1)
					} else {
						rep.strayed.Add(1)
					}
				}})
				rep.srv, rep.gw = srv, gw
			}
			c := newClient(t)
			sid, home := open(t, c, replicas[0].srv.URL)
			const polls = 20
			for range polls {
				if res, _ := poll(t, c, replicas[2].srv.URL, sid); res.StatusCode != 400 {
					t.Errorf("status %d", res.StatusCode)
				}
			}
			_, r := raw(t, replicas[2].srv, "GET /?EIO=4&transport=websocket&sid="+sid+` HTTP/1.1
Host: h
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==

`)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 400 {
				t.Error(res, err)
			}
			engines[home].mu.Lock()
			engines[home].sessions = nil
			engines[home].mu.Unlock()
			poll(t, c, replicas[1].srv.URL, sid)

			for i, want := range []struct{ strayed, ended int64 }{{0, 0}, {0, 1}, {polls + 1, 0}} {
				rep := &replicas[i]
				if strayed, ended := rep.strayed.Load(), rep.ended.Load(); strayed != want.strayed || ended != want.ended {
					t.Errorf("replica %d traced %d strayed and %d ended sessions, want %+v", i, strayed, ended, want)
				}
				lines := strings.Count(rep.log.String(), "stickiness is misconfigured")
				if (lines == 1) != (want.strayed > 0) || lines > 1 {
					t.Errorf("replica %d logged:\n%s", i, rep.log.String())
				}
				found := rep.gw.Stats().Findings
				if want.strayed == 0 && len(found) > 0 || want.strayed > 0 && (len(found) != 1 || found[0].Count != want.strayed) {
					t.Errorf("replica %d has found %+v", i, found)
				}
			}
		})
	}
}
