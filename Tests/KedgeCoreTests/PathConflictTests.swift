// That a file of Kedge's own is found wherever its path passes through a directory that a restore clears.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct PathConflictTests {
    @Test("what lies in a cleared directory is found, and what merely begins alike is not")
    func names() {
        let cleared = [ClearedDirectory("the data directory", "/srv/pg"), ClearedDirectory("the WAL", "/wal")]
        func found(_ path: RawPath) -> String? {
            PathConflict.find([KeptPath(.repository, "repository \"r\"", places: [path])], in: cleared).first?.sentence
        }
        #expect(
            found("/srv/pg/kedge") == "repository \"r\", at \"/srv/pg/kedge\", lies in the data directory \"/srv/pg\".")
        #expect(found("/srv/pg") == "repository \"r\", at \"/srv/pg\", is the data directory \"/srv/pg\".")
        #expect(found("/srv//pg/./x") != nil)
        #expect(found("/wal/deep/down/key") != nil)
        for path in ["/srv/pg2", "/srv", "/", "/srv/pgdata/x", "/wa", "/other", "srv/pg/x"] as [RawPath] {
            #expect(found(path) == nil, "\(path)")
        }
        let error = PathConflict.error("cannot", PathConflict.find([], in: cleared))
        #expect(error == nil)
    }

    @Test("generated trees: a conflict is what the first components say", arguments: 1...50)
    func generated(_ seed: UInt64) {
        let dice = SeededRandom(seed: seed)
        func path(_ most: Int) -> [String] {
            (0..<1 + dice.next(below: most)).map { _ in ["a", "b", "ab"][dice.next(below: 3)] }
        }
        for _ in 0..<100 {
            let (kept, cleared) = ((0..<3).map { _ in path(5) }, (0..<2).map { _ in path(3) })
            func raw(_ parts: [String]) -> RawPath { RawPath("/" + parts.joined(separator: "/")) }
            let found = PathConflict.find(
                kept.enumerated().map { KeptPath(.other, "\($0.offset)", places: [raw($0.element)]) },
                in: cleared.map { ClearedDirectory("c", raw($0)) })
            let expected = kept.indices.filter { index in
                cleared.contains { $0.count <= kept[index].count && Array(kept[index][..<$0.count]) == $0 }
            }
            #expect(found.map(\.kept.name) == expected.map { "\($0)" }, "seed \(seed)")
        }
    }

    @Test("links are followed both ways: one in the directory that leads out, and one outside that leads in")
    func links() throws {
        let directory = try TemporaryDirectory()
        for name in ["pg", "pg/etc", "out"] { _ = try Directory.create(at: RawPath(directory(name))) }
        for (name, target) in [("in", "pg/etc"), ("pg/link", "out"), ("pg/key", "out/key")] {
            try FileSystem.createSymbolicLink(at: RawPath(directory(name)), target: RawPath(directory(target)))
        }
        let cleared = [ClearedDirectory("d", try FileSystem.resolved(RawPath(directory("pg"))))]
        func isFound(_ name: String) -> Bool {
            !PathConflict.find([KeptPath(.other, name, at: RawPath(directory(name)))], in: cleared).isEmpty
        }
        for name in ["pg/key", "pg/new", "in/key", "in", "pg/link/key", "out/../pg/etc", "pg"] {
            #expect(isFound(name), "\(name)")
        }
        for name in ["out/key", "out", "pg2", "pg/../out/key"] { #expect(!isFound(name), "\(name)") }
    }
}
