// That names of objects are those of Catalog/FORMAT.md section 1, and that strangers are not taken for ours.

import KedgeCore
import KedgeRepository
import Testing

@Suite struct RepositoryLayoutTests {
    let system = SystemIdentifier(7_000_000_000_000_000_001)
    let tag = ContentHash(high: 1, low: 2)

    @Test("WAL files lie by system, timeline and log")
    func walFiles() throws {
        let segment = try #require(WALFileName("000000100000000A00000042"))
        #expect(
            ClusterLayout.walFile(segment, of: system, tag: nil).text
                == "wal/7000000000000000001/00000010/0000000A/000000100000000A00000042")
        let partial = try #require(WALFileName("000000100000000A00000042.partial"))
        #expect(
            ClusterLayout.walFile(partial, of: system, tag: tag).text
                == "wal/7000000000000000001/00000010/0000000A/000000100000000A00000042.partial-" + tag.hex)
        for name in ["00000010.history", "000000100000000A00000042.00000028.backup"] {
            let file = try #require(WALFileName(name))
            #expect(ClusterLayout.walFile(file, of: system, tag: nil).text == "wal/7000000000000000001/history/\(name)")
        }
    }

    @Test(
        "the name of an archived WAL file is parsed to what it was made of",
        arguments: ["000000100000000A00000042", "000000100000000A00000042.partial", "00000010.history"])
    func parsed(_ text: String) throws {
        let file = try #require(WALFileName(text))
        for tag in [nil, tag] where tag == nil || file != .history(TimelineID(16)) {
            let name = ClusterLayout.walFile(file, of: system, tag: tag)
            let parsed = try #require(ClusterLayout.parseWALFile(name.lastComponent))
            #expect(parsed.file == file)
            #expect(parsed.tag == tag)
        }
    }

    @Test(
        "a stranger's name is no WAL file",
        arguments: ["", "-", "000000100000000A0000004", "000000100000000A00000042-1", "x.history", "a.backup"])
    func strangers(_ text: String) {
        #expect(ClusterLayout.parseWALFile(text) == nil)
    }

    @Test(
        "a cluster can't take a name that the repository needs",
        arguments: ["kedge.json", "feature", "key", "a/b", "..", ".x", ""])
    func reservedNames(_ name: String) {
        #expect(RepositoryLayout.cluster(name) == nil)
    }

    @Test("packs lie by the first two digits of their id")
    func packs() {
        let id = RandomID(high: 0xAB00_0000_0000_0000, low: 1)
        #expect(ClusterLayout.pack(id).text == "pack/ab/\(id.hex)")
    }
}
