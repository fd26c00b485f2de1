package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
)

// openRedis returns a client that connects on first use.
func openRedis(flag, url string) (*redis.Client, error) {
	redis.SetLogger(quiet{})
	client, err := bus.NewRedisClient(url)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return client, nil
}

// quiet keeps go-redis from printing each of its failed dials: the store logs
// when Redis goes and when it is back.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func parseAffinity(list string, keys [][]byte, store affinity.Store, backends []*balancer.Backend, discovers bool) (affinity.Chain, error) {
	ids := make(map[string]string)
	for _, b := range backends {
		ids[b.ID()] = b.ID()
	}
	var chain affinity.Chain
	seen := make(map[string]bool)
	learns := false
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if seen[item] {
			return nil, fmt.Errorf("-affinity: %s is there twice", item) // two of them would take each other's marks for forged
		}
		seen[item] = true
		kind, name, _ := strings.Cut(item, ":")
		var a affinity.Affinity
		switch kind {
		case "cookie":
			a = &affinity.Cookie{Secrets: keys}
		case "engineio":
			a = &affinity.EngineIO{Secrets: keys, Store: store}
		case "appcookie":
			a = &affinity.AppCookie{Name: name, Store: store}
		case "prefix":
			a = &affinity.AppCookie{Name: name, Prefix: true, Secrets: keys}
		case "route":
			cookie, param, two := strings.Cut(name, "|")
			if !two {
				param = cookie
			}
			route := &affinity.Route{Cookie: cookie, Param: param, Backends: ids}
			if discovers {
				route.Backends = nil // any ID may come
			}
			a = route
		case "cookiemap":
			if discovers {
				return nil, errors.New("-affinity cookiemap needs to know all backends: give each by -backend, or use route:NAME with -discover")
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
			return nil, fmt.Errorf("-affinity %q: want cookie, cookiemap:NAME, ip, header:NAME, query:NAME, engineio, appcookie:NAME, prefix:NAME, route:NAME or route:COOKIE|PARAMETER", item)
		}
		chain = append(chain, a)
		learns = learns || kind == "engineio" || kind == "appcookie"
	}
	if store != nil && !learns {
		return nil, fmt.Errorf("-redis: -affinity %s learns nothing to be kept there, as engineio and appcookie:NAME do", list)
	}
	return chain, nil
}
