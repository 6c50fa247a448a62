// That a listing of a directory is a snapshot.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct DirectoryTests {
    @Test("files that are removed while a listing is gone through hide no others (lesson 23)")
    func snapshot() throws {
        let directory = try TemporaryDirectory()
        let path = RawPath(directory.path)
        // More than one call of getdents64(2) returns.
        for number in 0..<3000 {
            try FileDescriptor.open(path.appending("file-\(number)-with-a-name-of-some-length"), [.write, .create])
                .close()
        }
        let entries = try Directory.entries(at: path)
        #expect(entries.count == 3000)
        for entry in entries { try FileSystem.removeFile(at: path.appending(entry.name)) }
        #expect(try Directory.entries(at: path).isEmpty)
    }
}
