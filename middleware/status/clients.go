package status

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
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
	c.byTunnel.Store(t, origin{rec.ClientIP, strings.Clone(rec.Request.URL.EscapedPath())})
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
			h.logAct(r, "close tunnel", slog.String("tunnel", id), slog.String("backend", t.Group()), client(t.Key()), slog.Int("code", body.Code))
			return h.done(w, r, nil, "closed", fmt.Sprintf("A tunnel to %s was closed with %d.", t.Group(), body.Code))
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
	err := h.gateway.CloseSession(context.WithoutCancel(r.Context()), body.Key, body.Code, body.Reason)
	h.logAct(r, "close client", client(body.Key), slog.Int("code", body.Code))
	return h.done(w, r, err, "closed", fmt.Sprintf("The tunnels of a client are closed with %d, here and on the other gateways, if it has some.", body.Code))
}

var errNoKey = failf(http.StatusBadRequest, "key is missing: it is in the list of tunnels, and in the answer of api/pins/find")

// client returns the attribute that names a client in the log: a part of a hash, since the key
// may be a secret that the client signs in with.
func client(key string) slog.Attr {
	sum := sha256.Sum256([]byte(key))
	return slog.String("client", hex.EncodeToString(sum[:6]))
}

// done puts an action on the timeline, and answers with the same words. unshared is an error
// if other gateways may not have been told; here it is done all the same.
func (h *Handler) done(w http.ResponseWriter, r *http.Request, unshared error, kind, text string) error {
	h.timeline.add(event{Kind: kind, Text: text, Who: h.opts.Who(r)})
	if unshared != nil {
		return failf(http.StatusBadGateway, "%s But other gateways may not know: %v", text, unshared)
	}
	return writeJSON(w, map[string]string{"text": text})
}

// A pinState is a client's pin as api/pins/find shows it.
type pinState struct {
	Status  string `json:"status"`  // what the affinity has found, in its words; "" if only a key was given
	Backend string `json:"backend"` // the client's home, or else where it has a tunnel; "" if there is none
	Goes    string `json:"goes"`    // where its next request would go; "" if no backend is up
	Key     string `json:"key"`
	Fixed   bool   `json:"fixed"`   // its session exists at that backend only
	Tunnels int    `json:"tunnels"` // that it has at this gateway
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
	in := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: cmp.Or(body.Path, "/socket.io/")}, Host: r.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, RemoteAddr: r.RemoteAddr,
	}
	in = in.WithContext(r.Context())
	if n := given(body.Cookie, body.SID, body.Address, body.Key); n != 1 {
		return failf(http.StatusBadRequest, "want one of cookie, sid, address and key, not %d of them", n)
	}
	switch {
	case body.Cookie != "":
		in.Header.Set("Cookie", cookieField(body.Cookie))
	case body.SID != "":
		in.URL.RawQuery = url.Values{"EIO": {"4"}, "transport": {"polling"}, "sid": {body.SID}}.Encode()
	case body.Address != "":
		addr, err := netip.ParseAddr(body.Address)
		if err != nil {
			return failf(http.StatusBadRequest, "address is %q: want an IP address such as 203.0.113.9", body.Address)
		}
		in.RemoteAddr = netip.AddrPortFrom(addr, 1).String()
	}
	found := h.pinOf(in, body.Key)
	h.logAct(r, "find pin", client(found.Key))
	return writeJSON(w, found)
}

// given returns how many of these texts aren't empty.
func given(texts ...string) int {
	return len(slices.DeleteFunc(texts, func(text string) bool { return text == "" }))
}

// pinOf returns the pin of the client with this key, or if there is no key, of the one that
// sends a request like in. Of a key no more is known than where it has tunnels.
func (h *Handler) pinOf(in *http.Request, key string) pinState {
	s := pinState{Key: key}
	var goes *balancer.Backend
	if key == "" {
		var pin affinity.Pin
		pin, goes = h.gateway.FindPin(in)
		s.Status, s.Backend, s.Key, s.Fixed = pin.Status.String(), pin.Backend, pin.Key, pin.Fixed
	}
	for t := range h.gateway.Tunnels() {
		if s.Key != "" && t.Key() == s.Key {
			s.Tunnels++
			s.Backend = cmp.Or(s.Backend, t.Group())
		}
	}
	if key != "" {
		goes, _ = h.gateway.Pool().Pick(in, s.Backend, key)
	}
	if goes != nil {
		s.Goes = goes.ID()
	}
	return s
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
	text := "A client was moved to " + body.Backend + ": it goes there with its next request."
	if !h.hasTunnel(body.Key) {
		text = unseen + " it goes to " + body.Backend + "."
	}
	err := h.gateway.MovePin(context.WithoutCancel(r.Context()), body.Key, body.Backend)
	h.logAct(r, "move pin", client(body.Key), slog.String("backend", body.Backend))
	return h.done(w, r, err, "moved", text)
}

// unseen begins what is said of a client that may not exist: a key may be mistyped.
const unseen = "No WebSocket at this gateway has this key now. If a client has it, which polls, is at another gateway or comes within an hour,"

// hasTunnel reports whether the client with this key has a tunnel at this gateway.
func (h *Handler) hasTunnel(key string) bool {
	for t := range h.gateway.Tunnels() {
		if t.Key() == key {
			return true
		}
	}
	return false
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
	text := "A client's pin was forgotten: its next request is placed as a new client's."
	if !h.hasTunnel(body.Key) {
		text = unseen + " its next request is placed as a new client's."
	}
	err := h.gateway.MovePin(context.WithoutCancel(r.Context()), body.Key, "")
	h.logAct(r, "forget pin", client(body.Key))
	return h.done(w, r, err, "moved", text)
}
