package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// openRedis connects on first use. The options are those that affinity.Redis asks for.
func openRedis(url string) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("-redis: want a URL as redis://host:6379/0") // it may hold a password
	}
	opts.ContextTimeoutEnabled = true
	opts.DialerRetries = 1
	opts.DialTimeout = time.Second
	return redis.NewClient(opts), nil
}

func parseAffinity(list string, keys [][]byte, store affinity.Store, backends []*balancer.Backend) (affinity.Chain, error) {
	var chain affinity.Chain
	for item := range strings.SplitSeq(list, ",") {
		kind, name, _ := strings.Cut(strings.TrimSpace(item), ":")
		var a affinity.Affinity
		switch kind {
		case "cookie":
			a = &affinity.Cookie{Keys: keys}
		case "engineio":
			a = &affinity.EngineIO{Keys: keys, Store: store, Unknown: warnUnknown()}
		case "appcookie":
			a = &affinity.AppCookie{Name: name, Store: store}
		case "prefix":
			a = &affinity.AppCookie{Name: name, Prefix: true, Keys: keys}
		case "route":
			a = &affinity.Route{Cookie: name, Param: strings.ToLower(name)}
		case "cookiemap":
			ids := make(map[string]string)
			for _, b := range backends {
				ids[b.ID()] = b.ID()
			}
			a = &affinity.CookieMap{Name: name, Backends: ids}
		case "ip":
			a = &affinity.Hash{Key: &affinity.ClientAddr{}}
		case "header":
			a = &affinity.Hash{Key: affinity.Header(name)}
		case "query":
			a = &affinity.Hash{Key: affinity.Query(name)}
		}
		needsName := kind != "cookie" && kind != "ip" && kind != "engineio"
		if a == nil || needsName != (name != "") {
			return nil, fmt.Errorf("-affinity %q: want cookie, cookiemap:NAME, ip, header:NAME, query:NAME, engineio, appcookie:NAME, prefix:NAME or route:NAME", item)
		}
		chain = append(chain, a)
	}
	return chain, nil
}

// warnUnknown returns a function that logs, once a second at most, that a backend
// doesn't know the session of a request. A few such follow a restart of a node;
// many, with a status other than "hit", are the sign of a wrong configuration.
func warnUnknown() func(*http.Request, affinity.Pin, string) {
	var count, last atomic.Int64
	return func(_ *http.Request, found affinity.Pin, backend string) {
		n, now := count.Add(1), time.Now().Unix()
		if old := last.Load(); old != now && last.CompareAndSwap(old, now) {
			slog.Warn("session unknown to its backend", "backend", backend, "found", found.Status.String(), "so_far", n)
		}
	}
}
