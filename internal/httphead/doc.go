// Package httphead writes the heads of requests and parses those of answers of HTTP/1.1, with
// half of the allocations of package net/http. It does so for what is usual, and leaves the
// rest to that.
package httphead
