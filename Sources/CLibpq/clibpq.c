#include "clibpq.h"
