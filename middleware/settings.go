package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/httpfield"
	"github.com/limpet-go/limpet/internal/typednil"
)

// newRouter returns a router with the settings of o that concern it, or an error that says
// which of them is wrong.
func newRouter(pool *balancer.Pool, o Options) (*router, error) {
	if pool == nil {
		return nil, errors.New("limpet: a pool is needed: make one with balancer.NewPool or balancer.ParsePool")
	}
	if o.Gone < GoneMove || o.Gone > GoneRefuse {
		return nil, fmt.Errorf("limpet: Gone is %d; want GoneMove, GoneWait or GoneRefuse", o.Gone)
	}
	if err := o.ClientIP.validate(); err != nil {
		return nil, fmt.Errorf("limpet: %w", err)
	}
	if o.MaxBody < 0 {
		return nil, fmt.Errorf("limpet: MaxBody is %d; want a number of bytes, or 0 for no limit", o.MaxBody)
	}
	if o.WaitFor < 0 {
		return nil, fmt.Errorf("limpet: WaitFor %v is negative; 0 is the default, and Gone: GoneMove doesn't wait", o.WaitFor)
	}
	if o.WaitFor > 0 && o.WaitFor < time.Millisecond {
		return nil, fmt.Errorf("limpet: WaitFor is %v: a number without a unit counts nanoseconds; want 5*time.Second, say", o.WaitFor)
	}
	if o.WaitFor == 0 {
		o.WaitFor = 5 * time.Second
	}
	if err := o.Retry.validate(); err != nil {
		return nil, err
	}
	if err := validateField("PinHeader", o.PinHeader, "Limpet-Pin"); err != nil {
		return nil, err
	}
	if err := validateField("RequestID", o.RequestID, "X-Request-Id"); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Affinity == nil {
		o.Affinity = defaultAffinity(o.Logger)
	}
	if o.Handover != nil {
		o.Handover.inherit(o.Affinity)
	}
	if err := validate(o.Affinity); err != nil {
		return nil, err
	}
	if t, ok := o.Affinity.(affinity.Truster); ok {
		t.Trust(o.ClientIP.Addr, o.ClientIP.Secure)
	}
	retry := o.Retry.withDefaults()
	return &router{
		pool: pool, affinity: o.Affinity, gone: o.Gone, wait: o.WaitFor, retry: retry, maxBody: o.MaxBody,
		budget: newBudget(retry), observers: &observers{}, log: o.Logger, header: o.PinHeader,
		doctor: newDoctor(pool, o.Affinity, o.ClientIP, o.Logger), rareWarning: rareWarning{log: o.Logger},
	}, nil
}

// defaultAffinity returns the affinity of a gateway whose user has chosen none. It
// serves every client: those of Socket.IO by their sessions, because outside of
// browsers they keep no cookies, and all others by a cookie. Their secrets are random,
// so it logs a warning that says where that isn't enough.
func defaultAffinity(log *slog.Logger) affinity.Affinity {
	log.Warn("limpet: no Options.Affinity, so pins are sealed with a random secret: other replicas don't know them, nor does this one after a restart, unless a Takeover hands the secret over. " +
		"Share a secret and write Affinity: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}")
	said := slog.New(slog.DiscardHandler)
	return affinity.Chain{&affinity.EngineIO{Logger: said}, &affinity.Cookie{Logger: said}}
}

// validate returns the error of part's Validate method, if it has one: affinities, buses
// and transports do. A nil pointer in an interface, which isn't nil itself, is an error.
func validate(part any) error {
	if err := typednil.Check(part); err != nil {
		return fmt.Errorf("limpet: %w", err)
	}
	if v, ok := part.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("limpet: %w", err)
		}
	}
	return nil
}

// validateField returns an error if name, the value of an option, can't be the name of a
// field, or is that of a field with another meaning in answers.
func validateField(option, name, example string) error {
	if name == "" {
		return nil
	}
	token := http.Cookie{Name: name} // as a field's name is one, RFC 9110 section 5.6.2
	if token.Valid() != nil {
		return fmt.Errorf("limpet: %s %q: no field can have this name; want one such as %s", option, name, example)
	}
	field := http.CanonicalHeaderKey(name)
	if httpfield.IsHopByHop(field) || field == "Set-Cookie" || field == "Location" || strings.HasPrefix(field, "Content-") || strings.HasPrefix(field, "Sec-Websocket-") {
		return fmt.Errorf("limpet: %s %q has a meaning of its own in HTTP; want a field that nothing else uses, such as %s", option, name, example)
	}
	return nil
}
