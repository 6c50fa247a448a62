// That a backup warns where the repository evidently can't take it, and only there.
import KedgeBackup
import KedgeCore
import Testing

@Suite struct RoomForecastTests {
    private func warning(
        _ databaseBytes: UInt64, precedent: RoomForecast.Precedent? = nil, compresses: Bool = true, free: UInt64 = 100,
        freeInodes: UInt64 = 5
    ) -> String? {
        RoomForecast.warning(
            databaseBytes: databaseBytes, precedent: precedent, compresses: compresses,
            space: FileSystemSpace(
                mountPoint: "/srv", totalBytes: 1000, freeBytes: free, totalInodes: 10, freeInodes: freeInodes),
            repository: "main")
    }

    @Test("the last full backup tells how far the database compresses")
    func precedent() {
        let last = RoomForecast.Precedent(databaseBytes: 400, storedBytes: 100)
        #expect(warning(400, precedent: last) == nil)
        #expect(
            warning(404, precedent: last)
                == "repository \"main\" has probably too little room: this backup needs about 101 bytes (the last full "
                + "backup stored 100 bytes). The file system at \"/srv\" has 100 of 1000 bytes free.")
        #expect(warning(.max, precedent: last) != nil)
        // One of nothing tells nothing.
        #expect(warning(500, precedent: .init(databaseBytes: 0, storedBytes: 9)) == nil)
    }

    @Test("without a precedent only what is certain is warned of")
    func firstBackup() {
        #expect(warning(1009) == nil)
        #expect(warning(1010)?.contains("101 bytes (even if it is compressed to a tenth)") == true)
        #expect(warning(100, compresses: false) == nil)
        #expect(warning(101, compresses: false)?.contains("101 bytes (nothing is compressed)") == true)
    }

    @Test("a file system without inodes takes nothing, whatever the bytes are")
    func inodes() {
        #expect(warning(1, freeInodes: 0)?.hasSuffix("and none of its 10 inodes (files and directories).") == true)
    }
}
