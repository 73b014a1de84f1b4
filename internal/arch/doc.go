// Package arch holds the test that imports point one way.
package arch
