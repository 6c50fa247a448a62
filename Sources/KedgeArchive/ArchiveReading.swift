// Reading one WAL file from one repository, whole and checked: for archive-get and for whoever fetches ahead of it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

extension WALArchive {
    /// The whole file, as it was archived; nil where this repository has none of that name. Of several objects of one
    /// content the first that can be read serves; `warn` takes what is wrong with those before it.
    ///
    /// Throws `archive-conflict`, `damaged`, and what reading throws.
    func fetch(_ file: WALFileName, threads: Int, warn: (String) -> Void) throws(KedgeError) -> [UInt8]? {
        var failure: KedgeError?
        for object in try contents(of: file).one() {
            do throws(KedgeError) {
                let bytes = try read(object.archived, threads: threads).bytes
                if case .segment = file { try SegmentDelivery.check(bytes, file, segmentFormat()) }
                if let failure {
                    warn(
                        "another object of the same content was used, \"\(cluster.name(object.archived.name))\": "
                            + RepositoryFailures.text(failure))
                }
                return bytes
            } catch {
                guard error.code.isAboutTheObject else { throw error }
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        return nil
    }
}
