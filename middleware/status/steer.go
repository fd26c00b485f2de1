package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// maxBody is how many bytes the body of a call may have. A Cookie field is the longest that
// is in one.
const maxBody = 16 << 10

// read reads the JSON of a call's body into v. A body may be left out, but what there is
// must make sense: a field that is misspelt must not be taken for one that is left out.
func read(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return failf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxBody)
	case err != nil:
		return failf(http.StatusBadRequest, "the body could not be read")
	case len(body) == 0:
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return failf(http.StatusUnsupportedMediaType, "the body must be JSON, and say so: Content-Type: application/json")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return failf(http.StatusBadRequest, "the body doesn't fit this call: %s can't be a %s; GET api/ tells what it takes", cmp.Or(wrong.Field, "it"), wrong.Value)
	}
	if err != nil {
		return failf(http.StatusBadRequest, "the body doesn't fit this call: %s; GET api/ tells what it takes", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return failf(http.StatusBadRequest, "the body has more than one JSON value")
	}
	return nil
}

// backendOf returns the backend with this ID.
func (h *Handler) backendOf(id string) (*balancer.Backend, error) {
	if b := h.gateway.Pool().Get(id); b != nil {
		return b, nil
	}
	return nil, failf(http.StatusNotFound, "the pool has no backend %q", id)
}

func (h *Handler) drain(w http.ResponseWriter, r *http.Request, id string) error {
	var body struct {
		Within string `json:"within"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	var within time.Duration
	what := "drain without a deadline"
	if body.Within != "" {
		var err error
		if within, err = time.ParseDuration(body.Within); err != nil || within < 0 {
			return failf(http.StatusBadRequest, `within is %q: want a time such as "60s" or "5m", or leave it out for a drain without a deadline`, body.Within)
		}
	}
	if within > 0 {
		what = "drain within " + duration(within)
	}
	return h.steer(w, r, id, what, func(p *balancer.Pool) error { return p.Drain(id, within) })
}

func (h *Handler) undrain(w http.ResponseWriter, r *http.Request, id string) error {
	if err := read(w, r, &struct{}{}); err != nil {
		return err
	}
	return h.steer(w, r, id, "undrain", func(p *balancer.Pool) error { return p.Undrain(id) })
}

func (h *Handler) off(w http.ResponseWriter, r *http.Request, id string) error {
	if err := read(w, r, &struct{}{}); err != nil {
		return err
	}
	return h.steer(w, r, id, "off", func(p *balancer.Pool) error { return p.Off(id) })
}

func (h *Handler) weight(w http.ResponseWriter, r *http.Request, id string) error {
	var body struct {
		Weight *int `json:"weight"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Weight == nil || *body.Weight < 0 || *body.Weight > balancer.MaxWeight {
		return failf(http.StatusBadRequest, `want {"weight":N} with N from 1 to %d, or 0 for the configured weight`, balancer.MaxWeight)
	}
	return h.steer(w, r, id, fmt.Sprintf("weight %d", *body.Weight), func(p *balancer.Pool) error { return p.SetWeight(id, *body.Weight) })
}

func (h *Handler) shares(w http.ResponseWriter, r *http.Request, _ string) error {
	var body struct {
		Shares map[string]int `json:"shares"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Shares == nil {
		return failf(http.StatusBadRequest, `want {"shares":{"stable":99,"canary":1}}, or {"shares":{}} so that groups don't matter`)
	}
	h.acts.begin(allBackends, h.opts.Who(r))
	if err := h.gateway.Pool().SetShares(body.Shares); err != nil {
		h.acts.take(allBackends)
		return failf(http.StatusBadRequest, "%s", strings.TrimPrefix(err.Error(), "balancer: "))
	}
	h.logAct(r, "shares "+sharesText(body.Shares))
	answer := map[string]any{"shares": h.gateway.Pool().Shares()}
	if empty := h.emptyGroups(body.Shares); len(empty) > 0 {
		answer["warning"] = fmt.Sprintf("no backend is in %s: a share there counts for nothing", strings.Join(empty, ", "))
	}
	return writeJSON(w, answer)
}

// emptyGroups returns the names, for people, of groups that have a share and no backend.
func (h *Handler) emptyGroups(shares map[string]int) []string {
	left := maps.Clone(shares)
	for b := range h.gateway.Pool().All() {
		delete(left, b.Group())
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if left[name] > 0 {
			names = append(names, cmp.Or(name, "no group"))
		}
	}
	return names
}

// steer carries out a decision about a backend, and answers with how the backend is then.
// The pool reports the change to changed, which puts it on the timeline, and the gateway
// tells its replicas.
func (h *Handler) steer(w http.ResponseWriter, r *http.Request, id, what string, do func(*balancer.Pool) error) error {
	b, err := h.backendOf(id)
	if err != nil {
		return err
	}
	h.acts.begin(id, h.opts.Who(r))
	if err := do(h.gateway.Pool()); err != nil {
		h.acts.take(id)
		return failf(http.StatusConflict, "%v", err)
	}
	h.logAct(r, what, slog.String("backend", id))
	return h.writeBackend(w, b)
}

// logAct logs what an operator has done.
func (h *Handler) logAct(r *http.Request, what string, attrs ...slog.Attr) {
	attrs = append([]slog.Attr{slog.String("who", h.opts.Who(r)), slog.String("action", what)}, attrs...)
	h.log.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelInfo, "operator", attrs...)
}

// writeBackend answers with how a backend is, and warns if new clients have nowhere to go.
func (h *Handler) writeBackend(w http.ResponseWriter, b *balancer.Backend) error {
	var answer struct {
		backendState
		Warning string `json:"warning,omitempty"`
	}
	all := h.gateway.Stats().Backends
	if !slices.ContainsFunc(all, func(s limpet.BackendStats) bool { return s.Backend.State() == balancer.Up }) {
		answer.Warning = "no backend is up: new clients go to those that are sick, and get 503 if there are none"
	}
	for _, stats := range all {
		if stats.Backend == b {
			answer.backendState = h.backend(stats, time.Now())
			return writeJSON(w, answer)
		}
	}
	return failf(http.StatusNotFound, "%s was removed from the pool", b.ID())
}
