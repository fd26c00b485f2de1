package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

// DNS is a [balancer.Source] of the addresses that a name has, or of its SRV records. It asks
// in intervals, since Go's resolver doesn't tell how long an answer holds. The answer comes
// through the system's caches, whose times to live add to the interval.
//
// An answer that fails, or that has nothing in it but addresses that no backend can have
// (0.0.0.0, ::, multicast and broadcast), changes nothing. An address that is missing
// from an answer is drained within Grace, so that an answer which lacks it by mistake cuts no
// tunnel.
//
// The fields must not be changed once the source is followed.
type DNS struct {
	// Name is the name to ask for. Each of its addresses (A and AAAA records) is a
	// backend, whose ID is the address and Port, as in 10.0.0.1-3000.
	Name string

	// Port is the port of the backends, on which they speak HTTP. With SRV it must be 0.
	Port int

	// SRV asks for the SRV records (RFC 2782) of Name, which is one such as
	// _http._tcp.example.com. Each record of the best priority is a backend: its ID is the
	// target's name and port, as in node-0.example.com-3000, and its weight is the
	// record's. Clients follow the name to another address. A target with several
	// addresses is one backend, at the lowest one, IPv4 before IPv6.
	SRV bool

	Scheme   string        // of the backends' URLs: http or https, whose certificates must name the address; "": http
	Network  string        // ip4 or ip6 to ask for one kind of addresses, for instance if the name server fails for the other; "": both
	Interval time.Duration // between two questions, up to a fifth shorter at random; 0: 10 s
	Grace    time.Duration // see [balancer.Target]

	// Resolver asks. Nil means Go's own, configured as the system's is. A Resolver of
	// one's own should have StrictErrors: otherwise a name server that fails for
	// IPv6 only seems to have forgotten these addresses.
	Resolver *net.Resolver
}

// lookupTime limits a question. It is beyond what the resolver takes for its attempts by
// default, two of 5 s for each server.
const lookupTime = 20 * time.Second

// Validate reports what is wrong with the fields.
func (d *DNS) Validate() error {
	switch {
	case d.Name == "" || strings.ContainsAny(d.Name, "/ @?#"):
		return fmt.Errorf("discovery: DNS name %q: want one such as nodes.example.com", d.Name)
	case d.SRV && d.Port != 0:
		return errors.New("discovery: SRV records name the port, so that DNS.Port must be 0")
	case d.SRV && strings.Contains(d.Name, ":"):
		return fmt.Errorf("discovery: DNS name %q: SRV records name the port: leave it out", d.Name)
	case !d.SRV && (d.Port < 1 || d.Port > 65535):
		return fmt.Errorf("discovery: DNS.Port %d: want the port of the backends, 1 to 65535", d.Port)
	case d.Network != "" && d.Network != "ip" && d.Network != "ip4" && d.Network != "ip6":
		return fmt.Errorf("discovery: DNS.Network %q: want ip4, ip6, or nothing for both", d.Network)
	case d.Interval < 0 || 0 < d.Interval && d.Interval < time.Millisecond:
		return fmt.Errorf("discovery: DNS.Interval %v: want a time such as 10*time.Second", d.Interval)
	}
	return validScheme(d.Scheme)
}

// String returns the source as [Parse] reads it, without options.
func (d *DNS) String() string {
	if d.SRV {
		return "dns+srv://" + d.Name
	}
	return fmt.Sprintf("dns://%s:%d", d.Name, d.Port)
}

// Watch implements [balancer.Source].
func (d *DNS) Watch(ctx context.Context, update func([]balancer.Target, error)) {
	interval := cmp.Or(d.Interval, 10*time.Second)
	failures := backoff{most: interval}
	for {
		targets, err := d.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		update(targets, err)
		next := spread(interval)
		if err == nil {
			failures.reset()
		} else {
			next = failures.next()
		}
		if !pause.For(ctx, next) {
			return
		}
	}
}

func (d *DNS) ask(ctx context.Context) ([]balancer.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if d.SRV {
		return d.services(ctx)
	}
	addrs, err := d.addresses(ctx, d.Name)
	if err != nil {
		return nil, d.explain(err)
	}
	var targets []balancer.Target
	for _, addr := range addrs {
		targets = append(targets, d.target(addressID(addr, uint16(d.Port)), addr, uint16(d.Port)))
	}
	return targets, nil
}

func (d *DNS) target(id string, addr netip.Addr, port uint16) balancer.Target {
	return balancer.Target{ID: id, URL: urlOf(d.Scheme, addr, port), Grace: d.Grace}
}

func (d *DNS) resolver() *net.Resolver {
	if d.Resolver != nil {
		return d.Resolver
	}
	return &net.Resolver{PreferGo: true, StrictErrors: true}
}

// addresses returns the addresses of a name, the lowest first and each once. It leaves out
// those that no backend can have: a name server that blocks a name may answer with 0.0.0.0,
// and a connection to that reaches this machine. If no others are there, it is an error.
func (d *DNS) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, err := d.resolver().LookupNetIP(ctx, cmp.Or(d.Network, "ip"), name)
	if err != nil {
		return nil, err
	}
	for i, addr := range addrs {
		addrs[i] = addr.Unmap().WithZone("")
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	usable := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return a.IsUnspecified() || a.IsMulticast() || a == broadcast
	})
	if len(usable) == 0 {
		return nil, fmt.Errorf("%s has no address that a backend can have, but %s", name, addrs[0])
	}
	return usable, nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// services returns the targets of SRV records.
func (d *DNS) services(ctx context.Context) ([]balancer.Target, error) {
	_, records, err := d.resolver().LookupSRV(ctx, "", "", d.Name)
	if err != nil {
		return nil, d.explain(err)
	}
	best := slices.MinFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	records = slices.DeleteFunc(records, func(r *net.SRV) bool { return r.Priority != best || r.Target == "." || r.Port == 0 })

	all := make([][]netip.Addr, len(records))
	errs := make([]error, len(records))
	var asking sync.WaitGroup
	slots := make(chan struct{}, 16) // questions at once
	for i, r := range records {
		slots <- struct{}{}
		asking.Go(func() {
			all[i], errs[i] = d.addresses(ctx, r.Target)
			<-slots
		})
	}
	asking.Wait()

	var targets []balancer.Target
	for i, r := range records {
		var known *net.DNSError
		switch err := errs[i]; {
		case errors.As(err, &known) && known.IsNotFound:
			continue // the record points nowhere, as one may for a moment when its host is gone
		case err != nil:
			return nil, d.explain(err)
		}
		name := strings.ToLower(strings.TrimSuffix(r.Target, "."))
		t := d.target(nameID(name+"-"+strconv.Itoa(int(r.Port))), all[i][0], r.Port)
		t.Weight = int(r.Weight)
		targets = append(targets, t)
	}
	slices.SortFunc(targets, func(a, b balancer.Target) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(targets, func(a, b balancer.Target) bool { return a.ID == b.ID }), nil
}

// explain returns an error whose text doesn't change from one question to the next, as those
// of the resolver do: they name the port that was used.
func (d *DNS) explain(err error) error {
	var known *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &known) && known.IsTimeout:
		return fmt.Errorf("the name server doesn't answer for %s", d.Name)
	case known != nil && known.IsNotFound:
		return fmt.Errorf("%s has no such records", d.Name)
	case known != nil && d.Network == "" && !d.SRV:
		return fmt.Errorf("the name server fails for %s: %s; if it does so for IPv6 only, set the network to ip4", d.Name, known.Err)
	case known != nil:
		return fmt.Errorf("the name server fails for %s: %s", d.Name, known.Err)
	}
	return err
}
