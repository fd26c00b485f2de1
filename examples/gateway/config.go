package main

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/balancer/discovery"
	limpet "github.com/limpet-go/limpet/middleware"
)

// config is what the flags say, and what was built from it.
type config struct {
	listen    string
	tls       *tls.Config // nil: plain HTTP
	trusted   []netip.Prefix
	proxied   proxyproto.ConnPolicyFunc // nil: no peer sends the PROXY protocol
	dialer    balancer.Dialer
	picker    balancer.Picker
	check     balancer.Check
	load      load
	admin     admin
	door      door
	drain     time.Duration
	takeover  string // "": the gateway isn't handed over
	options   limpet.Options
	accessLog *slog.Logger // nil: none

	sources []balancer.Source // of backends, beside those of flags
	pool    *balancer.Pool
	gateway *limpet.Gateway
	handler http.Handler
	redis   *redis.Client   // nil without -redis
	store   *affinity.Redis // the same
	bus     *redis.Client   // nil without -bus
}

// parse reads the flags and builds the gateway. Its errors are one line each.
func parse(args []string) (*config, error) {
	cfg := &config{}
	var (
		specs    []string
		backends []*balancer.Backend
		names    string
		keyFiles []string
		redisURL *string // nil: not given; an empty one is a mistake
		busURL   *string
	)
	fs := flag.NewFlagSet("gateway", flag.ContinueOnError)
	fs.SetOutput(discard{})
	fs.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "`address` to listen on; a socket that systemd passes takes its place")
	fs.Func("backend", "a backend as `ID=URL`, or ID=URL,weight=N,group=NAME, on a Unix socket ID=unix:///path; repeatable", func(s string) error {
		specs = append(specs, s) // parsed below: package flag would repeat a password in its error
		return nil
	})
	fs.Func("discover", "find backends, and follow them as they come, move and go, at a `source`; repeatable, and beside -backend:\ndns://host:PORT (A and AAAA records), dns+srv://_http._tcp.host (SRV), asked each 10s or ?interval=TIME;\nfile:/path (a backend on each line, as for -backend);\nk8s://namespace/service:PORT (the Pods of a Service; PORT is its name, or a number that Pods listen on);\n?grace=TIME: what isn't named any more is drained for so long, by default 30s; &scheme=https: backends speak TLS", func(s string) error {
		source, err := discovery.Parse(s)
		cfg.sources = append(cfg.sources, source)
		return err
	})
	fs.StringVar(&names, "affinity", "engineio,cookie", "what ties a client to its backend, a comma-separated `list`, asked in turn:\ncookie, cookiemap:NAME (its value is a backend's ID; as the last one it is given to clients without),\nip, header:NAME, query:NAME,\nengineio (the session ID of Socket.IO clients without cookies; put it first),\nappcookie:NAME (learnt), prefix:NAME (marked; sealed if there are keys),\nroute:NAME or route:COOKIE|PARAMETER (a backend's ID in the cookie or path parameter, behind a dot)")
	fs.Func("redis", "keep what engineio and appcookie learn in this Redis, for all replicas: `URL` as redis://host:6379/0", func(s string) error {
		redisURL = &s // opened below, too
		return nil
	})
	fs.Func("bus", "share the operator's decisions and the end of sessions with the other replicas over this Redis:\n`URL` as redis://host:6379; whoever can publish there can turn backends off", func(s string) error {
		busURL = &s
		return nil
	})
	pinHeader := fs.Bool("pin-header", false, "answers say what became of the client's pin: Limpet-Pin: hit, new, moved, expired, forged or unknown")
	fs.StringVar(&cfg.options.RequestID, "request-id", "", "`field` that identifies a request, such as X-Request-Id: kept from the client, made if it sent none,\nand in the request to the backend, the answer and the access log; none: no ID")
	fs.StringVar(&cfg.admin.addr, "admin", "", "`address` for operators, HOST:PORT or unix:/path of a socket: a status page and its API at /,\n/metrics for Prometheus, /livez and /readyz for probes; with a port all is read-only, and over the socket,\nwhich only the gateway's user and root can open, backends can be drained and clients moved")
	fs.StringVar(&cfg.admin.tokenFile, "admin-token-file", "", "`file` with a secret of at least 16 characters that status page and API ask for (bearer token, or password\nwith any user name), and that allows to steer on a port, too")
	accessLog := fs.String("access-log", "off", "a line for each request and each tunnel in this `format`: json or text, to standard output, or to a file: json:FILE, text:FILE; off: none")
	errorPages := fs.String("error-pages", "", "`folder` with pages for the gateway's own answers, such as 503.html, 5xx.json and 502.txt; others are built in")
	picker := fs.String("picker", "roundrobin", "`how` a backend is picked for a new client: roundrobin, leastconn, twochoices, random")
	fs.StringVar(&cfg.check.Path, "health", "", "`path` of the health check; none: a TCP connection is enough, which can't see a process that hangs")
	fs.BoolVar(&cfg.check.KeepAlive, "health-keepalive", false, "the health checks of a backend use one kept connection, which costs less; now and then\na new one too, which shows whether the backend takes any")
	fs.DurationVar(&cfg.check.Interval, "health-interval", time.Second, "time between two health checks of a backend")
	trusted := fs.String("trusted", "", "proxies in front of this one, whose X-Forwarded-For is believed: `CIDR,…`")
	fs.Func("proxy-protocol", "TCP proxies in front of this one, which have to name the client by the PROXY protocol: `CIDR,…`\n(who of them doesn't is cut off, and a header of anybody else is no HTTP, and refused)", func(s string) (err error) {
		ranges := strings.Split(strings.ReplaceAll(s, " ", ""), ",")
		if cfg.proxied, err = proxyproto.PolicyFromRanges(ranges, proxyproto.REQUIRE, proxyproto.SKIP); err != nil {
			return fmt.Errorf("want CIDRs or addresses, as 10.0.0.0/8: %w", err)
		}
		return nil
	})
	fs.Func("local-addr", "source addresses of the connections to backends, in turn: `IP,…`\n(each holds some 28,000 to one backend)", func(s string) error {
		for item := range strings.SplitSeq(s, ",") {
			addr, err := netip.ParseAddr(strings.TrimSpace(item))
			if err != nil {
				return fmt.Errorf("want addresses of this machine, as 10.0.0.2,10.0.0.3: %w", err)
			}
			// Nobody would miss one that isn't: its turns go to the others.
			l, err := net.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
			if err != nil {
				return fmt.Errorf("%s is no address of this machine: %w", addr, err)
			}
			l.Close()
			cfg.dialer.LocalAddrs = append(cfg.dialer.LocalAddrs, addr)
		}
		return nil
	})
	var hexKeys []string // checked below: package flag would repeat a bad one in its error
	fs.Func("key", "key for cookies and session IDs, at least 32 bytes in `hex`; repeatable, the first one seals", func(s string) error {
		hexKeys = append(hexKeys, s)
		return nil
	})
	fs.Func("key-file", "`file` with a key in each line; the variable LIMPET_KEYS holds them separated by commas", func(s string) error {
		keyFiles = append(keyFiles, s)
		return nil
	})
	tlsCert := fs.String("tls-cert", "", "certificate `file`: serve HTTPS and HTTP/2")
	tlsKey := fs.String("tls-key", "", "private key `file`")
	fs.DurationVar(&cfg.options.LameDuck, "lame-duck", 0, "on SIGTERM and SIGINT: /readyz turns red, for this time everything is served as before")
	fs.DurationVar(&cfg.options.Rebalance, "rebalance", 0, "move clients back to a backend that has joined or come back, so that it has its share of the WebSockets and\npolling sessions within this `time`, such as 2m; with engineio and cookie only; 0: it gets new clients only")
	fs.DurationVar(&cfg.drain, "drain", 10*time.Second, "on SIGTERM and SIGINT, after -lame-duck: close the tunnels spread over this time, then end")

	fs.StringVar(&cfg.takeover, "takeover", "", "`path` of a Unix socket: a gateway that is started with the same path takes over the ports and all WebSockets\n(without TLS) of the one that runs, which ends when its last requests are answered; SIGHUP starts one; Linux only")

	cfg.load.flags(fs)
	cfg.door.flags(fs)
	fs.String("doctor", "", "serve nothing, but try the running set-up at `URL` as a client of Socket.IO does,\nwith -doctor-hold TIME and -doctor-origin ORIGIN, and no other flags") // main reads it
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		if text := err.Error(); strings.HasPrefix(text, "invalid value") && strings.HasSuffix(text, ": parse error") {
			err = fmt.Errorf("%w: want a number, and for a time its unit, as 10s", err)
		}
		return nil, err
	}
	for _, spec := range specs {
		b, err := balancer.ParseBackend(spec)
		if err != nil {
			return nil, fmt.Errorf("-backend: %w", err)
		}
		backends = append(backends, b)
	}
	_, _, err := net.SplitHostPort(cfg.listen)
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case len(backends) == 0 && len(cfg.sources) == 0:
		return nil, errors.New("no backend: give at least one -backend ID=URL, or a -discover SOURCE")
	case err != nil:
		return nil, fmt.Errorf("-listen %q: want HOST:PORT, or :PORT for all addresses", cfg.listen)
	case (*tlsCert == "") != (*tlsKey == ""):
		return nil, errors.New("-tls-cert and -tls-key belong together")
	case cfg.check.KeepAlive && cfg.check.Path == "":
		return nil, errors.New("-health-keepalive needs -health PATH")
	case cfg.check.Interval <= 0:
		return nil, errors.New("-health-interval must be positive")
	case cfg.drain < 0, cfg.options.LameDuck < 0, cfg.options.Rebalance < 0:
		return nil, errors.New("-drain, -lame-duck and -rebalance must not be negative")
	}
	if *pinHeader {
		cfg.options.PinHeader = "Limpet-Pin"
	}
	if err := cfg.admin.parse(); err != nil {
		return nil, err
	}
	if *errorPages != "" {
		if cfg.options.ErrorHandler, err = limpet.ErrorPages(os.DirFS(*errorPages)); err != nil {
			return nil, fmt.Errorf("-error-pages %s: %w", *errorPages, err) // err names files within the folder only
		}
	}
	if cfg.accessLog, err = openAccessLog(*accessLog); err != nil {
		return nil, err
	}
	if *tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(*tlsCert, *tlsKey)
		if err != nil {
			return nil, fmt.Errorf("-tls-cert, -tls-key: %w", err)
		}
		cfg.tls = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	if cfg.picker, err = parsePicker(*picker); err != nil {
		return nil, err
	}
	if cfg.trusted, err = parsePrefixes(*trusted); err != nil {
		return nil, err
	}
	keys, err := readKeys(hexKeys, keyFiles, os.Getenv("LIMPET_KEYS"))
	if err != nil {
		return nil, err
	}
	var store affinity.Store // nil: each affinity has an LRU of its own
	if redisURL != nil {
		if cfg.redis, err = openRedis("-redis", *redisURL); err != nil {
			return nil, err
		}
		cfg.store = &affinity.Redis{Client: cfg.redis}
		store = cfg.store
	}
	if busURL != nil {
		if cfg.bus, err = openRedis("-bus", *busURL); err != nil {
			return nil, err
		}
	}
	chain, err := parseAffinity(names, keys, store, backends, len(cfg.sources) > 0)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.build(backends, chain)
}

// discard silences package flag, which would print an error together with all
// of the usage.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func parsePicker(name string) (balancer.Picker, error) {
	switch name {
	case "roundrobin":
		return &balancer.RoundRobin{}, nil
	case "leastconn":
		return &balancer.LeastConn{}, nil
	case "twochoices":
		return &balancer.TwoChoices{}, nil
	case "random":
		return &balancer.Random{}, nil
	}
	return nil, fmt.Errorf("-picker %q: want roundrobin, leastconn, twochoices or random", name)
}

func parsePrefixes(list string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if addr, addrErr := netip.ParseAddr(s); addrErr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("-trusted %q: want a CIDR as 10.0.0.0/8, or an address", s)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// readKeys reads the keys from the flags, from the files and from the
// environment, in this order. A flag or a file without a key is an error, as a
// gateway with a random one wouldn't be what was asked for. The errors never
// repeat a key.
func readKeys(flags, files []string, env string) ([][]byte, error) {
	var keys [][]byte
	add := func(source, s string) error {
		key, err := hex.DecodeString(strings.TrimSpace(s))
		if err != nil || len(key) < 32 {
			return fmt.Errorf("%s: a key must be at least 32 bytes in hex, 64 digits: make one with openssl rand -hex 32", source)
		}
		keys = append(keys, key)
		return nil
	}
	for _, s := range flags {
		if err := add("-key", s); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("-key-file: %w", err)
		}
		lines := strings.Fields(string(text))
		if len(lines) == 0 {
			return nil, fmt.Errorf("-key-file: no key in %s", file)
		}
		for _, s := range lines {
			if err := add("-key-file", s); err != nil {
				return nil, err
			}
		}
	}
	for s := range strings.SplitSeq(env, ",") {
		if strings.TrimSpace(s) == "" {
			continue
		}
		if err := add("LIMPET_KEYS", s); err != nil {
			return nil, err
		}
	}
	return keys, nil
}
