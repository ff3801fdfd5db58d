// Package gen holds the code generated from api/proto, one package for each
// proto package; see generator.
package gen

//go:generate sh -c "cd generator && go run ."
