"""The genes of simulated tissue and their counts: real symbols in programmes that cells express.

A programme is a set of genes that go up together. Each cell type has its own; others depend on
a cell's state (proliferation and differentiation on nuclear atypia) or on nothing that a picture
shows (interferon response, stress). The biology is the same for every seed; patients differ.

A spot's expected counts are its library size times the mixture of its cells' levels (a cell counts
by its RNA, a tumour cell by its atypia too), times what the patient, two hidden programmes and
ambient RNA change. Counts are gamma-Poisson about that, so they vary more than Poisson.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from histospace_tf.data_pipelines.simulation.plan import TUMOUR

# Programme -> symbols, from the usual marker lists of breast tissue. No symbol stands twice.
PROGRAMMES: dict[str, str] = {
    "tumour": """
        ERBB2 EPCAM KRT8 KRT18 KRT19 KRT7 GNAS MUC1 CDH1 STARD3 PGAP3 MIEN1 GRB7 PSMD3 PSMB3 PCGF2
        CISD3 MLLT6 FASN SCD PPP1R1B TFAP2A TFAP2C CLDN3 CLDN4 CLDN7 ELF3 SPINT1 SPINT2 TACSTD2
        CD24 AGR3 KRT81 MUCL1 S100P SLC9A3R1 PTPRF SDC1 CRIP1 PERP DSP LSR RAB25 ESRP1 ERBB3 SPDEF
        RHOB PRSS8 ST14 AP1M2 MAL2 CEACAM6 GPRC5A CLTC LASP1 RPL19 MED1 BCAS3""",
    "differentiated": """
        ESR1 PGR GATA3 FOXA1 TFF1 TFF3 XBP1 AGR2 CCND1 STC2 SCUBE2 CA12 NAT1 GREB1 MYB SLC39A6
        AREG ANKRD30A TBX3 DNALI1 SERPINA3 PIP""",
    "proliferating": """
        MKI67 TOP2A PCNA TYMS TK1 CCNB1 CCNB2 CDK1 UBE2C BIRC5 AURKA AURKB CENPF NUSAP1 TPX2 RRM2
        STMN1 HMGB2 H2AFZ TUBA1B TUBB MCM2 MCM3 MCM7 CKS1B CKS2 CDC20 HMGB1 HMGB3 KPNA2 RAN TUBB4B
        PTTG1 CDT1 FEN1 GINS2 RANBP1 NME1 DUT SNRPB PHB NPM1""",
    "stroma": """
        COL1A1 COL1A2 COL3A1 COL5A1 COL5A2 COL6A1 COL6A2 COL6A3 COL12A1 COL10A1 COL11A1 FN1 SPARC
        VIM DCN LUM BGN POSTN FBLN1 FBLN2 FBN1 THY1 PDGFRA PDGFRB ACTA2 TAGLN MYL9 TPM2 CALD1 MMP2
        MMP11 MMP14 TIMP1 TIMP2 TIMP3 CTGF IGFBP4 IGFBP7 SFRP2 SFRP4 AEBP1 ASPN VCAN THBS1 THBS2
        LOX LOXL1 FAP C1S C1R SERPINF1 SERPING1 MGP ELN MFAP5 CCDC80 S100A4 LGALS1 CTSK FSTL1
        PCOLCE DPT VCAM1 PECAM1 VWF A2M HTRA1 FLNA""",
    "immune": """
        CD3D CD3E CD3G CD2 CD4 CD8A CD8B PTPRC IGKC IGHG1 IGHG3 IGHG4 IGHA1 IGHM IGLC2 IGLC3
        JCHAIN CD79A MS4A1 CXCL9 CXCL13 CCL5 CCL19 CCL21 CXCR4 GZMA GZMB GZMK NKG7 PRF1 TRAC TRBC1
        TRBC2 LTB IL7R CCR7 SELL CORO1A LCK CD52 CD48 CD37 CD53 CD74 HLA-DRA HLA-DRB1 HLA-DPA1
        HLA-DPB1 HLA-DQB1 LAPTM5 TYROBP FCER1G AIF1 CD68 CD14 C1QA C1QB C1QC CST7 IL2RG RAC2
        ARHGDIB LSP1 BTG1 MZB1 DERL3 FKBP11 SSR4 TXNIP IRF8""",
    "fat": """
        ADIPOQ PLIN1 PLIN4 FABP4 LPL CD36 CIDEC CIDEA LEP CFD G0S2 GPD1 ADH1B AQP7 LIPE PPARG
        ACACB RBP4 TUSC5 THRSP PCK1 FABP5 ADIRF AKR1C2 GPX3 SORBS1 CAVIN2 CAV1 ITGA7 PDE3B""",
    "gland": """
        KRT5 KRT14 KRT17 KRT15 OXTR MYLK CNN1 TP63 SCGB2A2 SCGB1D2 SCGB3A1 LTF KIT ELF5 SAA1 SAA2
        CCL28 WIF1 PIGR MMP7 SFN KRT6B TRIM29 DST""",
    "interferon": """
        ISG15 IFI6 IFI27 IFIT1 IFIT3 MX1 OAS1 STAT1 BST2 IFITM1 IFITM3 LY6E PSMB9 PSMB8 TAP1 HLA-F
        HLA-A HLA-B HLA-C HLA-E IFI44L""",
    "stress": """
        VEGFA CA9 NDRG1 ADM SLC2A1 LDHA PGK1 ENO1 ALDOA BNIP3 HSPA1A HSPA1B DNAJB1 HSPB1 HSP90AA1
        FOS JUN EGR1 ATF3 DDIT3 DDIT4 IER3 MT2A MT1X""",
    "all": """
        ACTB ACTG1 GAPDH B2M TMSB10 TMSB4X PFN1 CFL1 MYL6 TPT1 EEF1A1 EEF2 EEF1G EEF1D FTL FTH1
        UBA52 UBB UBC FAU RACK1 PPIA PSAP CTSD CTSB CTSZ GRN CD63 CD9 CD81 CD59 ITM2B ITM2C SERF2
        OAZ1 CALR CANX P4HB PDIA3 PDIA6 HSPA5 HSP90B1 HSP90AB1 SSR2 SEC61B SEC61A1 COX4I1 COX6C
        COX7C COX8A ATP5E ATP5B ATP6V0B NDUFA4 NDUFB9 UQCRQ PRDX1 PRDX2 PRDX5 GPX4 SOD1 PTMA PTMS
        NACA BTF3 DDX5 HNRNPA1 HNRNPA2B1 SRSF5 TUBA1A CHCHD2 MIF S100A6 S100A11 S100A10 ANXA2
        ANXA5 LGALS3 TAGLN2 ARPC2 CAPZB MYH9 MYL12B ACTN4 RHOA CDC42 YWHAZ YWHAB PPDPF AES EIF1
        EIF4A1 EIF3K EIF5A PABPC1 RPLP0 RPLP1 RPLP2 RPSA RPL3 RPL4 RPL5 RPL7A RPL8 RPL10 RPL11
        RPL13 RPL13A RPL15 RPL18 RPL18A RPL23 RPL27A RPL28 RPL29 RPL30 RPL32 RPL35 RPL36 RPL37A
        RPL38 RPL41 RPS2 RPS3 RPS4X RPS5 RPS6 RPS8 RPS9 RPS11 RPS12 RPS14 RPS15 RPS16 RPS17 RPS18
        RPS19 RPS20 RPS21 RPS24 RPS27 RPS28""",
}

BIOLOGY_SEED = 20_210  # draws the levels below once, for every data set
LEVEL_SPREAD = 0.9  # standard deviation of a gene's log level
LEVEL = {"all": 0.9}  # log level above other programmes' background; 0 where not named
MARKER_BOOST = (2.3, 0.7)  # log rise of a marker in its cell type: mean, standard deviation
# Markers of first interest: well expressed, and clear.
LEADING = """
    ERBB2 EPCAM KRT8 KRT18 KRT19 GNAS MUC1 COL1A1 COL1A2 COL3A1 FN1 SPARC VIM CD3D CD3E PTPRC
    IGKC CXCL9 ADIPOQ PLIN1 FABP4 MKI67 TOP2A ESR1 KRT5 KRT14"""
LEADING_LEVEL, LEADING_BOOST = 0.8, 2.5  # the lowest that they have
TYPE_SPREAD = 0.29  # every gene's own difference between cell types, of the logarithm
# Log change of a gene's level from atypia 0 to 1 of a tumour cell.
ATYPIA_RISE = {"proliferating": 3.0, "differentiated": -2.6}
# Patients: standard deviation of the log change of one gene, and of one programme as a whole.
PATIENT_GENE_SPREAD = 0.35
PATIENT_PROGRAMME_SPREAD = 0.30
# Counts of a spot over cells.
AMBIENT = 0.12  # share of a spot's RNA that comes from the section at large
HIDDEN = ("interferon", "stress")  # programmes that vary over a section, invisible in the image
HIDDEN_SPREAD = 0.7  # standard deviation of their logarithm
LIBRARY_SIZE = 2000.0  # median counts of a spot
LIBRARY_SPREAD = 0.45  # standard deviation of its logarithm, spots; sections have half of it
LIBRARY_POWER = 0.6  # how a spot's library size follows its RNA
DISPERSION = 0.22  # variance of the gamma factor of a count


@dataclasses.dataclass(frozen=True)
class Biology:
    """What a cell expresses.

    genes: g symbols. programme: (g,) names of their programmes.
    levels: (cell types, g) expected share of a cell's counts before state and patient, not scaled.
    """

    genes: tuple[str, ...]
    programme: np.ndarray
    levels: np.ndarray


def biology(cell_types: tuple[str, ...]) -> Biology:
    """Genes and their levels in each cell type; always the same."""
    rng = np.random.default_rng(BIOLOGY_SEED)
    genes = [(gene, name) for name, symbols in PROGRAMMES.items() for gene in symbols.split()]
    names = np.array([name for _, name in genes])
    base = rng.normal(0, LEVEL_SPREAD, len(genes)) + np.array([LEVEL.get(n, 0.0) for n in names])
    boost = np.maximum(rng.normal(*MARKER_BOOST, len(genes)), 0.7)
    leading = np.isin([gene for gene, _ in genes], LEADING.split())
    base = np.where(leading, np.maximum(base, LEADING_LEVEL), base)
    boost = np.where(leading, np.maximum(boost, LEADING_BOOST), boost)
    levels = base + rng.normal(0, TYPE_SPREAD, (len(cell_types), len(genes)))
    for at, cell_type in enumerate(cell_types):
        shown = names == cell_type
        if cell_type == "tumour":
            shown |= np.isin(names, list(ATYPIA_RISE))
        levels[at] += shown * boost
    return Biology(tuple(gene for gene, _ in genes), names, np.exp(levels))


def patient_levels(rng: np.random.Generator, biology: Biology) -> np.ndarray:
    """(g,) random factors by which one patient's levels differ."""
    gene = rng.normal(0, PATIENT_GENE_SPREAD, len(biology.genes))
    whole = dict(
        zip(PROGRAMMES, rng.normal(0, PATIENT_PROGRAMME_SPREAD, len(PROGRAMMES)), strict=True)
    )
    return np.exp(gene + np.array([whole[name] for name in biology.programme]))


def counts_of_spots(
    rng: np.random.Generator,
    rna: np.ndarray,
    atypia: np.ndarray,
    centres: np.ndarray,
    biology: Biology,
    levels: np.ndarray,
) -> np.ndarray:
    """Draws counts of spots; every spot has at least one.

    Args:
        rna: (n, types) RNA of each cell type under each spot; atypia: (n,) of its tumour.
        centres: (n, 2) full-resolution pixels, x first.
        levels: (types, g) as `Biology.levels`, of one patient.
    Returns:
        (n, g) whole numbers.
    """
    state = np.ones((len(rna), len(biology.genes)))
    for name, rise in ATYPIA_RISE.items():
        # The programme's mean over atypia stays where it is.
        state[:, biology.programme == name] = np.exp(rise * (atypia - 0.5))[:, None]
    expected = np.zeros(state.shape)
    for kind in range(rna.shape[1]):
        mixed = rna[:, [kind]] * levels[kind]
        expected += mixed * state if kind == TUMOUR else mixed
    for name in HIDDEN:
        swing = _smooth_at(rng, centres) * HIDDEN_SPREAD
        expected[:, biology.programme == name] *= np.exp(swing)[:, None]
    expected /= expected.sum(axis=1, keepdims=True)
    expected = (1 - AMBIENT) * expected + AMBIENT * expected.mean(axis=0)

    content = rna.sum(axis=1)
    library = LIBRARY_SIZE * (content / np.median(content)) ** LIBRARY_POWER
    library *= np.exp(rng.normal(0, LIBRARY_SPREAD, len(rna)) + rng.normal(0, LIBRARY_SPREAD / 2))
    factor = rng.gamma(1 / DISPERSION, DISPERSION, expected.shape)
    counts = rng.poisson(library[:, None] * expected * factor)
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts


def _smooth_at(rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    """A smooth random field of deviation 1 at (n, 2) places: plane waves of several directions."""
    waves = 12
    length = rng.uniform(600, 2000, waves)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, waves))
    ahead = centres @ np.stack([np.cos(angle), np.sin(angle)])
    return np.cos(2 * np.pi * ahead / length + phase).sum(axis=1) * np.sqrt(2 / waves)
