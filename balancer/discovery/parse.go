package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// Parse returns the source that a flag or a variable of the environment describes:
//
//	dns://host:port                       the addresses of a host, see [DNS]
//	dns+srv://_http._tcp.host             SRV records
//	file:/path                            a file, see [File]
//	k8s://namespace/service:port          the Pods of a Service, see [Kubernetes];
//	                                      k8s:///service:port is one of the own namespace
//
// Options follow behind a question mark, as in dns://host:3000?interval=5s&grace=1m:
//
//	grace=TIME       all: the Grace of the targets, by default 30s
//	scheme=https     all but file: for backends that speak TLS
//	interval=TIME    dns
//	network=ip4      dns: see its field Network
//	server=URL       k8s: the API server, such as http://127.0.0.1:8001 of kubectl proxy
//
// The source that it returns is valid.
func Parse(spec string) (balancer.Source, error) {
	kind, rest, ok := strings.Cut(spec, ":")
	if !ok || kind != "file" && !strings.HasPrefix(rest, "//") {
		return nil, fmt.Errorf("discovery: source %q: want dns://host:port, dns+srv://_http._tcp.host, file:/path or k8s://namespace/service:port", spec)
	}
	where, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	if kind == "file" {
		where, query, _ = strings.Cut(rest, "?")
	}
	o := &options{}
	if err := o.read(query); err != nil {
		return nil, fmt.Errorf("discovery: source %q: %w", spec, err)
	}
	source, err := o.source(kind, where)
	if err == nil {
		err = o.unused()
	}
	if err == nil {
		err = source.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("discovery: source %q: %s", spec, strings.TrimPrefix(err.Error(), "discovery: "))
	}
	return source, nil
}

type validated interface {
	balancer.Source
	Validate() error
}

func (o *options) source(kind, where string) (validated, error) {
	switch kind {
	case "dns":
		name, port, ok := cutPort(where)
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || err != nil || n == 0 {
			return nil, errors.New("want dns://host:port, with the port of the backends as a number")
		}
		return o.dns(&DNS{Name: name, Port: int(n)}), nil
	case "dns+srv":
		return o.dns(&DNS{Name: where, SRV: true}), nil
	case "file":
		path := filepath.FromSlash(strings.TrimPrefix(where, "//"))
		return &File{Path: path, Grace: o.duration("grace")}, nil
	case "k8s":
		namespace, service, ok := strings.Cut(where, "/")
		if !ok {
			return nil, errors.New("want k8s://namespace/service:port")
		}
		service, port, _ := strings.Cut(service, ":")
		return &Kubernetes{
			Namespace: namespace, Service: service, Port: port,
			Scheme: o.take("scheme"), Server: o.take("server"), Grace: o.duration("grace"),
		}, nil
	}
	return nil, errors.New("no such kind: want dns, dns+srv, file or k8s")
}

func (o *options) dns(d *DNS) *DNS {
	d.Scheme, d.Network = o.take("scheme"), o.take("network")
	d.Interval, d.Grace = o.duration("interval"), o.duration("grace")
	return d
}

func cutPort(hostPort string) (host, port string, ok bool) {
	i := strings.LastIndexByte(hostPort, ':')
	if i < 0 {
		return "", "", false
	}
	return hostPort[:i], hostPort[i+1:], true
}

// options are those behind the question mark of a spec.
type options struct {
	values url.Values
	err    error
}

func (o *options) read(query string) (err error) {
	if o.values, err = url.ParseQuery(query); err != nil {
		return errors.New("its options can't be read: want name=value, joined by &")
	}
	return nil
}

// take returns the value of an option, and "" if it isn't there.
func (o *options) take(name string) string {
	value := o.values.Get(name)
	if o.values.Has(name) && value == "" {
		o.err = fmt.Errorf("its option %s is empty", name)
	}
	o.values.Del(name)
	return value
}

func (o *options) duration(name string) time.Duration {
	s := o.take(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d == 0 {
		o.err = fmt.Errorf("its option %s is %q: want a time such as 30s", name, s)
	}
	return d
}

// unused reports an option that was wrong, or that the source doesn't have.
func (o *options) unused() error {
	for name := range o.values {
		return fmt.Errorf("it has no option %q", name)
	}
	return o.err
}

// validScheme returns an error for a scheme that backends' URLs can't have. "" stands for http.
func validScheme(scheme string) error {
	switch scheme {
	case "", "http", "https":
		return nil
	}
	return fmt.Errorf("discovery: scheme %q: want http or https", scheme)
}

// urlOf returns the URL of a backend at this address.
func urlOf(scheme string, addr netip.Addr, port uint16) string {
	return cmp.Or(scheme, "http") + "://" + netip.AddrPortFrom(addr, port).String()
}

// addressID returns the ID of a backend that is known by its address alone. Brackets aren't
// allowed in an ID.
func addressID(addr netip.Addr, port uint16) string {
	return fmt.Sprintf("%s-%d", addr, port)
}

// nameID returns the ID of a backend that has a name. One that is too long for an ID is cut,
// and a hash of it keeps it different from others.
func nameID(name string) string {
	const most = 64
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:8])
	return name[:most-1-len(hash)] + "-" + hash
}
