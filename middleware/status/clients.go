package status

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/internal/closecode"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// clients knows from where each open tunnel came. It is kept only if somebody may ask.
type clients struct{ byTunnel sync.Map } // *upgrade.Tunnel: origin

// An origin is where a tunnel came from.
type origin struct {
	addr netip.Addr
	path string
}

func (c *clients) opened(rec *limpet.Record, t *upgrade.Tunnel) {
	c.byTunnel.Store(t, origin{rec.ClientIP, strings.Clone(rec.Request.URL.Path)})
	t.OnClosed(func(upgrade.Summary) { c.byTunnel.Delete(t) })
}

// tunnelState is a tunnel as api/tunnels shows it.
type tunnelState struct {
	ID      string `json:"id"`
	Backend string `json:"backend"`
	Key     string `json:"key,omitempty"`
	Address string `json:"address,omitempty"`
	Path    string `json:"path,omitempty"`
	Began   moment `json:"began"`
}

func (c *clients) state(t *upgrade.Tunnel) tunnelState {
	s := tunnelState{ID: t.ID(), Backend: t.Group(), Key: t.Key(), Began: moment(t.Began())}
	if from, ok := c.byTunnel.Load(t); ok {
		from := from.(origin)
		s.Path = from.path
		if from.addr.IsValid() {
			s.Address = from.addr.String()
		}
	}
	return s
}

// maxTunnels is how many tunnels are listed at most.
const maxTunnels = 1000

func (h *Handler) listTunnels(w http.ResponseWriter, r *http.Request, _ string) error {
	q := r.URL.Query()
	limit := 100
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxTunnels {
			return failf(http.StatusBadRequest, "limit is %q: want a number from 1 to %d", text, maxTunnels)
		}
		limit = n
	}
	list := struct {
		Total   int64         `json:"total"`
		Tunnels []tunnelState `json:"tunnels"`
	}{Tunnels: []tunnelState{}}
	for t := range h.gateway.Tunnels() {
		if backend, key := q.Get("backend"), q.Get("key"); backend != "" && backend != t.Group() || key != "" && key != t.Key() {
			continue
		}
		if list.Total++; len(list.Tunnels) < limit {
			list.Tunnels = append(list.Tunnels, h.clients.state(t))
		}
	}
	return writeJSON(w, list)
}

// A closing is how a tunnel is to be closed.
type closing struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// check fills in the code, and reports what is wrong with the closing.
func (c *closing) check() error {
	if c.Code == 0 {
		c.Code = closecode.ServiceRestart // clients connect again
	}
	if !closecode.Sendable(c.Code) {
		return failf(http.StatusBadRequest, "code is %d: want one that a WebSocket may be closed with, such as 1012 (restart), 1008 (refused) or 4000 to 4999", c.Code)
	}
	if closecode.Reason(c.Reason) != c.Reason {
		return failf(http.StatusBadRequest, "reason has %d bytes: a close frame has room for 123", len(c.Reason))
	}
	return nil
}

func (h *Handler) closeTunnel(w http.ResponseWriter, r *http.Request, id string) error {
	var body closing
	if err := read(w, r, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	for t := range h.gateway.Tunnels() {
		if t.ID() == id {
			t.Close(body.Code, body.Reason)
			return h.done(w, r, "closed", fmt.Sprintf("A tunnel to %s was closed with %d.", t.Group(), body.Code), "close tunnel",
				slog.String("tunnel", id), slog.String("backend", t.Group()), client(t.Key()), slog.Int("code", body.Code))
		}
	}
	return failf(http.StatusNotFound, "this gateway has no tunnel %q; it may have ended, or be another gateway's", id)
}

func (h *Handler) closeClient(w http.ResponseWriter, r *http.Request, _ string) error {
	var body struct {
		Key string `json:"key"`
		closing
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	if body.Key == "" {
		return errNoKey
	}
	if err := h.gateway.CloseSession(r.Context(), body.Key, body.Code, body.Reason); err != nil {
		return failf(http.StatusBadGateway, "the client's tunnels here are closed, but other gateways may not know: %v", err)
	}
	return h.done(w, r, "closed", fmt.Sprintf("The tunnels of a client were closed with %d.", body.Code), "close client", client(body.Key), slog.Int("code", body.Code))
}

var errNoKey = failf(http.StatusBadRequest, "key is missing: it is in the list of tunnels, and in the answer of api/pins/find")

// client returns the attribute that names a client in the log: a part of a hash, since the key
// may be a secret that the client signs in with.
func client(key string) slog.Attr {
	sum := sha256.Sum256([]byte(key))
	return slog.String("client", hex.EncodeToString(sum[:6]))
}

// done logs an action, puts it on the timeline, and answers with the same words.
func (h *Handler) done(w http.ResponseWriter, r *http.Request, kind, text, action string, attrs ...slog.Attr) error {
	h.logAct(r, action, attrs...)
	h.timeline.add(event{Kind: kind, Text: text, Who: h.opts.Who(r)})
	return writeJSON(w, map[string]string{"text": text})
}

// findPin tells where a client belongs that is known by something that it sends.
func (h *Handler) findPin(w http.ResponseWriter, r *http.Request, _ string) error {
	var body struct {
		Cookie  string `json:"cookie"`
		SID     string `json:"sid"`
		Address string `json:"address"`
		Key     string `json:"key"`
		Path    string `json:"path"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	in := (&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/socket.io/"}, Header: http.Header{}, Host: r.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(r.Context())
	if body.Path != "" {
		in.URL.Path = body.Path
	}
	asked := 0
	for _, given := range []string{body.Cookie, body.SID, body.Address, body.Key} {
		if given != "" {
			asked++
		}
	}
	if asked != 1 {
		return failf(http.StatusBadRequest, "want one of cookie, sid, address and key")
	}
	found := struct {
		Status  string `json:"status"`
		Backend string `json:"backend"`
		Goes    string `json:"goes"`
		Key     string `json:"key"`
		Fixed   bool   `json:"fixed"`
		Tunnels int    `json:"tunnels"`
	}{}
	switch {
	case body.Key != "":
		found.Key = body.Key
		if b, err := h.gateway.Pool().Pick(in, "", body.Key); err == nil {
			found.Goes = b.ID()
		}
	default:
		if body.Cookie != "" {
			in.Header.Set("Cookie", cookieField(body.Cookie))
		}
		if body.SID != "" {
			in.URL.RawQuery = url.Values{"EIO": {"4"}, "transport": {"polling"}, "sid": {body.SID}}.Encode()
		}
		if body.Address != "" {
			addr, err := netip.ParseAddr(body.Address)
			if err != nil {
				return failf(http.StatusBadRequest, "address is %q: want an IP address such as 203.0.113.9", body.Address)
			}
			in.RemoteAddr = netip.AddrPortFrom(addr, 1).String()
		}
		pin, goes := h.gateway.FindPin(in)
		found.Status, found.Backend, found.Key, found.Fixed = pin.Status.String(), pin.Backend, pin.Key, pin.Fixed
		if goes != nil {
			found.Goes = goes.ID()
		}
	}
	for t := range h.gateway.Tunnels() {
		if found.Key != "" && t.Key() == found.Key {
			found.Tunnels++
			if found.Backend == "" {
				found.Backend = t.Group()
			}
		}
	}
	h.logAct(r, "find pin", client(found.Key))
	return writeJSON(w, found)
}

// cookieField returns what an operator has pasted as a Cookie field. A value without a name
// gets the names that affinity.Cookie has by default.
func cookieField(text string) string {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "Cookie:"))
	if strings.Contains(strings.TrimRight(text, "="), "=") {
		return text
	}
	return "__Host-limpet=" + text + "; limpet=" + text
}

func (h *Handler) movePin(w http.ResponseWriter, r *http.Request, _ string) error {
	var body struct {
		Key     string `json:"key"`
		Backend string `json:"backend"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Key == "" {
		return errNoKey
	}
	if _, err := h.backendOf(body.Backend); err != nil {
		return err
	}
	if err := h.gateway.MovePin(context.WithoutCancel(r.Context()), body.Key, body.Backend); err != nil {
		return failf(http.StatusBadGateway, "%v", err)
	}
	return h.done(w, r, "moved", "A client was moved to "+body.Backend+": it goes there with its next request.", "move pin", client(body.Key), slog.String("backend", body.Backend))
}

func (h *Handler) forgetPin(w http.ResponseWriter, r *http.Request, _ string) error {
	var body struct {
		Key string `json:"key"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Key == "" {
		return errNoKey
	}
	if err := h.gateway.MovePin(context.WithoutCancel(r.Context()), body.Key, ""); err != nil {
		return failf(http.StatusBadGateway, "%v", err)
	}
	return h.done(w, r, "moved", "A client's pin was forgotten: its next request is placed as a new client's.", "forget pin", client(body.Key))
}
