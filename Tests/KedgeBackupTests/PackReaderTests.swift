// Proves that a run of a pack is the same bytes whichever way it is read: lent frame by frame, or opened in place.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

struct PackReaderTests {
    private struct Pack {
        let directories: PackDirectories
        let id: RandomID
        let stream: [UInt8]
        /// Where each frame begins in the stream.
        let starts: [Int]
    }

    private static let sizes = [1, 8192, 100_000, 17, 1 << 20, 1 << 20, 65_536, 3, 300_000, 1 << 20, 4095]

    private static func makePack() throws -> Pack {
        let cluster = try MemoryRepository().cluster()
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        let writer = PackWriter(
            ClusterPacks(cluster: cluster, limits: .standard, label: label, tally: PackTally()), limits: .standard)
        var (stream, starts): ([UInt8], [Int]) = ([], [])
        var id: RandomID?
        for (number, size) in sizes.enumerated() {
            let bytes = CopyHarness.bytes(size, seed: UInt64(number + 1))
            starts.append(stream.count)
            stream += bytes
            id = try bytes.withBytes { raw throws(KedgeError) in try writer.append(raw, sources: []).pack }
        }
        try writer.finish()
        return Pack(directories: PackDirectories(cluster), id: try #require(id), stream: stream, starts: starts)
    }

    private static func filled(
        _ reader: PackReader, _ pack: Pack, _ frame: Int, _ offset: Int, _ length: Int
    ) throws(KedgeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xAA, count: length)
        try bytes.withMutableBytes { out throws(KedgeError) in
            try reader.read(pack.id, frame: UInt32(frame), offset: UInt32(offset), into: out)
        }
        return bytes
    }

    @Test(
        "every run is the bytes that were stored, by one reader that is used again and again", arguments: [0, 3])
    func runs(_ keptFrames: Int) throws {
        let pack = try Self.makePack()
        let kept = keptFrames * PackLayout.sharedFrameBytes
        let filling = PackReader(pack.directories, keptBytes: kept)
        let lending = PackReader(pack.directories, keptBytes: kept)
        let last = pack.stream.count
        for (frame, start) in pack.starts.enumerated() {
            let size = Self.sizes[frame]
            for offset in Set([0, 1, size / 2, size - 1]) where offset < size {
                let begin = start + offset
                for length in [1, size - offset, size, size + 1, 2 * size + 70_000, last - begin]
                where length > 0 && begin + length <= last {
                    let expected = pack.stream[begin..<begin + length]
                    let bytes = try Self.filled(filling, pack, frame, offset, length)
                    #expect(bytes.elementsEqual(expected), "\(frame), \(offset), \(length)")
                    var lent: [UInt8] = []
                    try lending.read(
                        pack.id, frame: UInt32(frame), offset: UInt32(offset), length: UInt64(length)
                    ) { lent.append(contentsOf: $0) }
                    #expect(lent.elementsEqual(expected), "\(frame), \(offset), \(length)")
                }
            }
        }
    }

    @Test("a shared frame is read once while as many fit as are asked for in turns, and again once one does not")
    func kept() throws {
        let memory = try MemoryRepository()
        let store = FaultyStore(memory.store) { _ in nil }
        let source = RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
        let cluster = try source.openCluster("main", for: .write)
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        let writer = PackWriter(
            ClusterPacks(cluster: cluster, limits: .standard, label: label, tally: PackTally()), limits: .standard)
        let frames = (0..<10).map { CopyHarness.bytes(PackLayout.sharedFrameBytes - $0, seed: UInt64($0 + 1)) }
        var id: RandomID?
        for frame in frames {
            id = try frame.withBytes { raw throws(KedgeError) in try writer.append(raw, sources: []).pack }
        }
        try writer.finish()
        let pack = Pack(directories: PackDirectories(cluster), id: try #require(id), stream: [], starts: [])
        /// Pages of all frames in turns: how many reads that takes.
        func reads(keeping count: Int) throws -> Int {
            let reader = PackReader(pack.directories, keptBytes: count * PackLayout.sharedFrameBytes)
            _ = try Self.filled(reader, pack, 0, 0, 1)
            let before = store.operations.count
            for page in 1..<5 {
                for (number, frame) in frames.enumerated() {
                    let bytes = try Self.filled(reader, pack, number, page * 8192, 8192)
                    #expect(bytes.elementsEqual(frame[page * 8192..<(page + 1) * 8192]))
                }
            }
            return store.operations.count - before
        }
        #expect(try reads(keeping: 10) == 9)
        #expect(try reads(keeping: 9) > 9)
        // The very first page lies in the frame that was read last.
        #expect(try reads(keeping: 0) == 39)
    }

    @Test("a run beyond a frame's or the pack's end is damage, and the reader goes on to serve others")
    func beyond() throws {
        let pack = try Self.makePack()
        let reader = PackReader(pack.directories)
        let (lastFrame, size) = (Self.sizes.count - 1, 4095)
        let runs = [(lastFrame, 0, size + 1), (lastFrame, size, 1), (lastFrame + 1, 0, 1), (0, 1, 1)]
        for (frame, offset, length) in runs {
            let error = #expect(throws: KedgeError.self) { try Self.filled(reader, pack, frame, offset, length) }
            #expect(error?.code == .damaged, "\(frame), \(offset), \(length)")
        }
        #expect(try Self.filled(reader, pack, 1, 0, 8192).elementsEqual(pack.stream[1..<8193]))
    }
}
