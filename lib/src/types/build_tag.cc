// Which build of the library this is, as a symbol. What must not be linked with the other one refers to it (fuzz/hostile).

extern "C" {
#if defined(GUESTMEM_SCHEDULED)
extern const char guestmem_scheduled_build;
const char guestmem_scheduled_build = 1;
#else
extern const char guestmem_production_build;
const char guestmem_production_build = 1;
#endif
}
