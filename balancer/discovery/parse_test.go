package discovery_test

import (
	"fmt"

	"github.com/limpet-go/limpet/balancer/discovery"
)

// parse returns a source that has no String.
func parse(spec string) (any, error) {
	source, err := discovery.Parse(spec)
	switch s := source.(type) {
	case *discovery.DNS:
		type plain discovery.DNS
		return (*plain)(s), err
	case *discovery.File:
		type plain discovery.File
		return (*plain)(s), err
	case *discovery.Kubernetes:
		type plain discovery.Kubernetes
		return (*plain)(s), err
	}
	return source, err
}

func ExampleParse() {
	source, err := discovery.Parse("dns+srv://_http._tcp.nodes.example.com?grace=1m")
	fmt.Println(source, err)
	_, err = discovery.Parse("dns://nodes.example.com")
	fmt.Println(err)
	// Output:
	// dns+srv://_http._tcp.nodes.example.com <nil>
	// discovery: source "dns://nodes.example.com": want dns://host:port, with the port of the backends as a number
}
