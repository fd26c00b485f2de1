//go:build linux

package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
)

// reverseProxyCommand runs this program as a plain ReverseProxy. It has one
// backend, as it can't stick.
func reverseProxyCommand(path string, s site) (*exec.Cmd, error) {
	var dir string // of the keys
	if s.tls {
		dir = s.dir
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", role+"=reverseproxy "+strconv.Itoa(s.port)+" "+s.backends[0]+" "+dir)
	return cmd, nil
}

// reverseProxy is what many Go services have as their gateway: the standard
// library's, told to keep enough connections.
func reverseProxy(port, backend, keys string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 1000
	transport.DisableCompression = true
	target := &url.URL{Scheme: "http", Host: backend}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
	}
	if keys != "" {
		return http.ListenAndServeTLS("127.0.0.1:"+port, certFile(keys), keyFile(keys), proxy)
	}
	return http.ListenAndServe("127.0.0.1:"+port, proxy)
}
